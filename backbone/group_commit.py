"""Group commit: concurrent requests share one transaction; each gets its result after the commit."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from sqlalchemy.exc import DBAPIError

from backbone.database.transient import is_transient
from backbone.http.problems import Overloaded

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")

CommitBatch = Callable[[Sequence[RequestT]], Awaitable[Sequence[ResultT | Exception]]]
"""Commits a batch in one transaction; returns a result, or an exception for its caller, per request."""

GATHER_S: Final = 0.003
"""Batch window once batches grow. At low rates there is none: a fixed window triples p99."""

RETRY_FOR_S: Final = 1.0
"""How long a batch is retried after transient errors; its callers, and all later ones, wait for it."""
RETRY_S: Final = 0.02
"""The delay before the first retry; it doubles for each further one."""


class GroupCommit(Generic[RequestT, ResultT]):
    """Gathers requests into batches for `commit`, one batch at a time.

    A transient error (`backbone.database.transient`) does not depend on the requests: the whole batch is
    retried for `RETRY_FOR_S`, then fails with the error. `commit` must tolerate the repetition of a batch
    that it has already committed. On a permanent database error the batch is bisected until the failing
    request is alone, so that one invalid request fails no other. A caller that is cancelled does not cancel
    the batch. The queue is bounded: beyond it, `submit` raises `Overloaded` (503 with Retry-After).
    """

    def __init__(
        self, commit: CommitBatch[RequestT, ResultT], *, max_batch: int = 128, max_queue: int = 2048
    ) -> None:
        self._commit = commit
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: deque[tuple[RequestT, asyncio.Future[ResultT]]] = deque()
        self._last_size = 0
        self._running: asyncio.Task[None] | None = None

    async def submit(self, request: RequestT) -> ResultT:
        """Commit a request in a shared transaction; return its result after the commit.

        Raises the exception that `commit` returned for it, or `Overloaded`.
        """
        if len(self._queue) >= self._max_queue:
            raise Overloaded("Too many requests are queued; try again in a second.")
        answer: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        self._queue.append((request, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._drain())
        return await asyncio.shield(answer)

    async def _drain(self) -> None:
        try:
            while self._queue:
                # Requests that arrived in the same iteration of the event loop join without any delay.
                await asyncio.sleep(GATHER_S if self._last_size > 8 else 0)
                batch = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
                self._last_size = len(batch)
                await self._commit_and_resolve(batch)
        finally:
            self._running = None

    async def _commit_and_resolve(self, batch: Sequence[tuple[RequestT, asyncio.Future[ResultT]]]) -> None:
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
                # Retrieve it: asyncio logs an exception that a cancelled caller has not retrieved.
                future.exception()
            else:
                future.set_result(answer)

    async def _commit_with_retries(self, requests: Sequence[RequestT]) -> Sequence[ResultT | Exception]:
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
