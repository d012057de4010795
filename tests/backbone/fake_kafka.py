"""A Kafka consumer in memory, as `aiokafka.AIOKafkaConsumer` behaves towards a subscription."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError


@dataclass(frozen=True)
class FakeRecord:
    """One record; its value says which."""

    offset: int
    value: bytes
    key: bytes = b""
    headers: tuple[tuple[str, bytes], ...] = (("name", b"tests.noted.v1"),)
    timestamp: int = 0


class FakeConsumer:
    """Reads `logs` from its positions on; a rebalance forgets them, and holds back every poll meanwhile.

    `suspensions` is how often a poll yields to others before it hands over; never between moving its
    position and returning, as in aiokafka.
    """

    def __init__(self) -> None:
        self.logs: defaultdict[TopicPartition, list[FakeRecord]] = defaultdict(list)
        self.positions: dict[TopicPartition, int] = {}
        self.assigned: frozenset[TopicPartition] = frozenset()
        self.rebalancing = False
        self.suspensions = 0
        self.error: KafkaError | None = None
        self.polls = 0
        self.asked_for: list[int] = []
        self._paused: set[TopicPartition] = set()
        self._news = asyncio.Event()

    def publish(self, partition: TopicPartition, count: int = 1, size: int = 0) -> None:
        log = self.logs[partition]
        for _ in range(count):
            log.append(FakeRecord(len(log), b"%d" % len(log) + b"x" * size))
        self._news.set()

    def find_positions(self) -> None:
        """As aiokafka does a while after an assignment: where the group committed, here the beginning."""
        for one in self.assigned:
            self.positions.setdefault(one, 0)
        self._news.set()

    def reassign(self, partitions: Iterable[TopicPartition]) -> None:
        self.assigned, self.positions, self.rebalancing = frozenset(partitions), {}, False
        self._paused.clear()
        self._news.set()

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, list[FakeRecord]]:
        self.polls += 1
        self.asked_for.append(max_records)
        for _ in range(self.suspensions):
            await asyncio.sleep(0)
        while True:
            if self.error is not None:
                error, self.error = self.error, None
                raise error
            if not self.rebalancing and (found := self._drain(max_records)):
                return found
            self._news.clear()
            await self._news.wait()

    def _drain(self, left: int) -> dict[TopicPartition, list[FakeRecord]]:
        found = {}
        for one in sorted(self.assigned & self.positions.keys() - self._paused):
            if records := self.logs[one][self.positions[one] :][:left]:
                found[one] = records
                self.positions[one] += len(records)
                left -= len(records)
        return found

    def fail(self, error: KafkaError) -> None:
        self.error = error
        self._news.set()

    def assignment(self) -> frozenset[TopicPartition]:
        return self.assigned

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused -= set(partitions)
        self._news.set()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        assert partition in self.assigned
        self.positions[partition] = offset
        self._news.set()

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        for _ in range(self.suspensions):
            await asyncio.sleep(0)
        return dict.fromkeys(partitions, 0)
