"""Group commit: concurrent requests share one transaction and each is answered after the commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from sqlalchemy.exc import DBAPIError

from backbone.database.transient import is_transient
from backbone.http.problems import Overloaded

Wish = TypeVar("Wish")
Answer = TypeVar("Answer")

CommitBatch = Callable[[Sequence[Wish]], Awaitable[Sequence[Answer | Exception]]]
"""Does a batch in one transaction; one answer, or one exception for its sender, a wish."""

GATHER_S: Final = 0.003
"""How long to gather once batches grow. At low rates nothing waits: a fixed window triples p99."""

RETRY_FOR_S: Final = 1.0
"""How long a batch that meets transient trouble is tried again: callers wait for it, and others behind it."""
RETRY_S: Final = 0.02
"""The first pause between two tries; each further one is twice as long."""


class GroupCommit(Generic[Wish, Answer]):
    """Gathers wishes into batches for `commit`, one batch at a time.

    Transient trouble (`backbone.database.transient`) says nothing about the wishes: the whole batch is tried
    again
    for `RETRY_FOR_S`, then all of it fails with the error. `commit` must bear a repetition of what it has
    already committed. A permanent database error halves the batch until the culprit stands alone, so that
    one bad wish fails nobody else. A sender that leaves does not cancel the batch. The queue is bounded:
    past it, `Overloaded` (503 with Retry-After).
    """

    def __init__(
        self, commit: CommitBatch[Wish, Answer], *, max_batch: int = 128, max_queue: int = 2048
    ) -> None:
        self._commit = commit
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: deque[tuple[Wish, asyncio.Future[Answer]]] = deque()
        self._last_size = 0
        self._running: asyncio.Task[None] | None = None

    async def submit(self, request: Wish) -> Answer:
        """The answer to `request`, once its transaction has been committed.

        Raises what `commit` answered with, or `Overloaded`.
        """
        if len(self._queue) >= self._max_queue:
            raise Overloaded("Too many requests are waiting; try again in a second.")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((request, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._drain())
        return await asyncio.shield(answer)

    async def _drain(self) -> None:
        try:
            while self._queue:
                # Requests that arrived in the same turn of the loop come in without any wait.
                await asyncio.sleep(GATHER_S if self._last_size > 8 else 0)
                batch = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
                self._last_size = len(batch)
                await self._commit_and_resolve(batch)
        finally:
            self._running = None

    async def _commit_and_resolve(self, batch: Sequence[tuple[Wish, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._commit_with_retries([request for request, _ in batch])
        except Exception as error:
            if len(batch) > 1 and isinstance(error, DBAPIError) and not is_transient(error):
                middle = len(batch) // 2
                await self._commit_and_resolve(batch[:middle])
                await self._commit_and_resolve(batch[middle:])
                return
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
                future.exception()  # a sender that left must not make the loop complain
            else:
                future.set_result(answer)

    async def _commit_with_retries(self, requests: Sequence[Wish]) -> Sequence[Answer | Exception]:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + RETRY_FOR_S
        pause_s = RETRY_S
        while True:
            try:
                return await self._commit(requests)
            except Exception as error:
                if not is_transient(error) or loop.time() + pause_s > give_up:
                    raise
            await asyncio.sleep(pause_s)
            pause_s *= 2
