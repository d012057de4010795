"""Reading ahead of a Kafka consumer: a fetch is always in flight while the caller works on its last batch.

aiokafka sends one fetch at a time to each broker, and none while fetched records wait to be polled. A
consumer that polls, works and rests therefore leaves the broker unasked most of the time, and what arrives
meanwhile waits for a whole round. The pump polls at once and keeps what comes in a bounded buffer.

Nothing is awaited between aiokafka's handing over records (which moves its position) and their being put into
the buffer, so a seek falls before both or after both. Dropping a partition's buffered records is safe only
together with a seek: the caller does both.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from aiokafka import TopicPartition

MAX_RECORDS: Final = 1_000
"""With so many records buffered, or `MAX_BYTES`, nothing more is polled; a poll may bring as many again."""
MAX_BYTES: Final = 8 * 1024 * 1024
POLL_S: Final = 1.0
CALLER_IDLE_S: Final = 10.0
"""A caller that has taken nothing for so long may be stuck. Polling ends, so that aiokafka's
`max_poll_interval_ms` (5 minutes) begins to run, and another member is given the partitions."""

Polled = Mapping[TopicPartition, Sequence[Any]]


class Polls(Protocol):
    """What the pump needs of `AIOKafkaConsumer`."""

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Polled:
        """Records of the assigned partitions, as soon as there are some; must not be cancelled."""
        ...


class ReadPump:
    """Polls `consumer` in a task of its own; `take` hands out what came, in order within each partition.

    `changed` is set whenever there may be something new to take, an error included.
    """

    def __init__(self, consumer: Polls) -> None:
        self.changed = asyncio.Event()
        self._consumer = consumer
        self._buffer: deque[tuple[TopicPartition, deque[Any]]] = deque()
        self._records = 0
        self._bytes = 0
        self._taken_at = 0.0
        self._may_poll = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._closed = False

    def take(self, at_most: int) -> list[tuple[TopicPartition, list[Any]]]:
        """Up to `at_most` buffered records, the longest waiting first, by partition; starts the polling.

        Raises what a poll raised, once; the next call polls again.
        """
        self._taken_at = asyncio.get_running_loop().time()
        self.changed.clear()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run())
        taken: list[tuple[TopicPartition, list[Any]]] = []
        left = at_most
        while left and self._buffer:
            partition, waiting = self._buffer[0]
            records = [waiting.popleft() for _ in range(min(left, len(waiting)))]
            if not waiting:
                self._buffer.popleft()
            left -= len(records)
            taken.append((partition, records))
            self._bytes -= sum(map(_size, records))
        self._records -= at_most - left
        self._may_poll.set()
        return taken

    def drop(self, partitions: Collection[TopicPartition]) -> None:
        """Forget what is buffered of these; their positions are to be set anew."""
        kept = [one for one in self._buffer if one[0] not in partitions]
        self._buffer = deque(kept)
        self._records = sum(len(records) for _, records in kept)
        self._bytes = sum(_size(record) for _, records in kept for record in records)
        self._may_poll.set()

    def clear(self) -> None:
        """Forget everything that is buffered; every position is to be set anew."""
        self.drop({partition for partition, _ in self._buffer})

    async def close(self) -> None:
        """End the polling. A poll under way is cancelled and the records it read are lost, so the pump must
        not be used again."""
        self._closed = True
        self.changed.set()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        try:
            while True:
                await self._wait_until_needed()
                self._put(
                    await self._consumer.getmany(timeout_ms=int(POLL_S * 1000), max_records=MAX_RECORDS)
                )
        except Exception as error:  # whatever it is: the caller must not wait for a pump that has ended
            self._error, self._task = error, None
            self.changed.set()

    async def _wait_until_needed(self) -> None:
        while self._is_full() or self._is_caller_idle():
            self._may_poll.clear()
            await self._may_poll.wait()

    def _is_full(self) -> bool:
        return self._records >= MAX_RECORDS or self._bytes >= MAX_BYTES

    def _is_caller_idle(self) -> bool:
        return asyncio.get_running_loop().time() - self._taken_at > CALLER_IDLE_S

    def _put(self, polled: Polled) -> None:
        for partition, records in polled.items():
            if records:
                self._buffer.append((partition, deque(records)))
                self._records += len(records)
                self._bytes += sum(map(_size, records))
                self.changed.set()


def _size(record: Any) -> int:
    return len(record.value or b"")
