"""The embedded bus with faults at each of its calls, as one node sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

from backbone.bus.protocol import BusUnavailable, LoadPositions, Message, Partition, Positions, Record
from backbone.bus.sqlite import SqliteBus, SqliteSubscription
from simulation.faults import Fault
from simulation.nodes import Operations, alive

PUBLISH: Final = frozenset(Fault)
READ: Final = frozenset({Fault.DELAY, Fault.ERROR, Fault.CRASH_BEFORE, Fault.CRASH_AFTER})
LOCAL: Final = frozenset({Fault.DELAY, Fault.CRASH_BEFORE})
COMMIT: Final = READ | {Fault.LOST_ACK, Fault.TIMEOUT}
REPUBLISHED_AFTER_S: Final = 0.5
"""A duplicate is published up to so long after the first."""
COMPLETE: Final = frozenset({"payments"})
"""Topics of absolute states. Their events may be missing, repeated and reordered within a batch."""


class NodeBus:
    """An `EventBus`. `bus` returns the present bus, because a crash of the whole system opens it anew."""

    def __init__(self, bus: Callable[[], SqliteBus], operations: Callable[[], Operations]) -> None:
        self._bus = bus
        self._operations = operations

    async def publish(self, messages: Sequence[Message], *, lossy: bool = False) -> None:
        """See `EventBus.publish`."""
        operations = self._operations()
        detail = "".join(f" {one.name.split('.')[1]}:{one.id[-6:]}" for one in messages[:12])

        async def store() -> None:
            await self._bus().publish(messages, lossy=lossy)

        fault = await operations.begin("bus.publish", PUBLISH, detail)
        match fault:
            case Fault.ERROR:
                raise BusUnavailable("simulated: nothing was stored")
            case Fault.PARTIAL:
                if part := self._part_of(messages, operations):
                    await self._bus().publish(part, lossy=lossy)
                raise BusUnavailable("simulated: a part was stored")
            case Fault.DUPLICATE:
                await store()
                self._repeat_later(messages, operations)
            case _:
                await store()
        operations.end(fault)
        if fault is Fault.LOST_ACK:
            raise BusUnavailable("simulated: the acknowledgement was lost")
        if fault is Fault.TIMEOUT:
            await asyncio.sleep(1.0)
            alive()
            raise BusUnavailable("simulated: no answer in time")

    def _part_of(self, messages: Sequence[Message], operations: Operations) -> list[Message]:
        """What a bus stores that fails in between: the first ones of each partition.

        Of `COMPLETE` topics any, as consumers promise to cope with every order. The others are published
        once more, and are then behind newer ones.
        """
        chance = operations.plan.random
        cut = chance.randrange(len(messages)) if messages else 0
        return [
            message
            for place, message in enumerate(messages)
            if place < cut or (message.topic in COMPLETE and chance.random() < 0.5)
        ]

    def _repeat_later(self, messages: Sequence[Message], operations: Operations) -> None:
        """Publish again later, as a producer does that was stalled before it noticed its acknowledgement."""

        async def repeat() -> None:
            await asyncio.sleep(operations.plan.random.uniform(0.0, REPUBLISHED_AFTER_S))
            operations.trace.note(f"bus repeats {len(messages)} messages")
            # Without its watermark: what it said was complete then, and others are newer by now.
            plain = [Message(m.topic, m.key, m.id, m.name, m.value, m.traceparent) for m in messages]
            await self._bus().publish(plain, lossy=True)

        operations.outside(repeat())

    async def publish_watermarks(self, topic: str, at: datetime, partitions: Sequence[int]) -> None:
        """See `EventBus.publish_watermarks`."""
        await self._operations().call(
            "bus.watermarks",
            lambda: self._bus().publish_watermarks(topic, at, partitions),
            BusUnavailable,
            COMMIT,
        )

    async def subscribe(
        self, group: str, topics: Sequence[str], positions: LoadPositions | None = None
    ) -> FaultySubscription:
        """See `EventBus.subscribe`."""
        operations = self._operations()
        fault = await operations.begin("bus.subscribe", READ, f" {group}")
        if fault is Fault.ERROR:
            raise BusUnavailable("simulated: the group cannot be joined")
        member = await self._bus().subscribe(group, topics, positions)
        return FaultySubscription(member, operations)

    async def follow(self, topics: Sequence[str], since: Literal["beginning", "end"]) -> FaultySubscription:
        """See `EventBus.follow`."""
        operations = self._operations()
        fault = await operations.begin("bus.follow", READ, f" {topics[0]}")
        if fault is Fault.ERROR:
            raise BusUnavailable("simulated: the topics cannot be read")
        return FaultySubscription(await self._bus().follow(topics, since), operations)

    async def close(self) -> None:
        """The bus belongs to the system, not to a node."""


class FaultySubscription:
    """A `Subscription` of a node."""

    def __init__(self, member: SqliteSubscription, operations: Operations) -> None:
        self._member = member
        self._operations = operations

    async def fetch(self, max_records: int, timeout_s: float) -> list[Record]:
        """See `Subscription.fetch`. After a crash nothing is received."""
        alive()
        records = await self._member.fetch(max_records, timeout_s)
        named = [record for record in records if record.name]
        if not named:
            alive()
            return records
        detail = "".join(f" {record.name.split('.')[1]}:{record.id[-6:]}" for record in named[:12])
        before = {
            partition: min(record.offset for record in named if record.partition == partition)
            for partition in {record.partition: None for record in named}
        }
        fault = await self._operations.begin("bus.fetch", READ, detail)
        if fault is Fault.ERROR:
            await self._member.seek(before)
            raise BusUnavailable("simulated: nothing could be fetched")
        self._operations.end(fault)
        return records

    async def seek(self, positions: Positions) -> None:
        """See `Subscription.seek`. It sends nothing, so it cannot fail."""
        await self._operations.begin("bus.seek", LOCAL)
        await self._member.seek(positions)

    async def commit(self, positions: Positions) -> None:
        """See `Subscription.commit`."""
        await self._operations.call(
            "bus.commit", lambda: self._member.commit(positions), BusUnavailable, COMMIT
        )

    def assignment(self) -> frozenset[Partition]:
        """See `Subscription.assignment`."""
        return self._member.assignment()

    def lag(self) -> Mapping[Partition, int]:
        """See `Subscription.lag`."""
        return self._member.lag()

    async def group_lag(self) -> Mapping[Partition, int]:
        """See `Subscription.group_lag`."""
        lag: Mapping[Partition, int] = await self._operations.call(
            "bus.group_lag", self._member.group_lag, BusUnavailable, READ
        )
        return lag

    async def close(self) -> None:
        """See `Subscription.close`. The bus notices also the end of a member that crashed."""
        await self._member.close()
