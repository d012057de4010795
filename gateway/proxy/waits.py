"""`Prefer: wait`: responses held until a pledge changes, with one lookup for all of them.

However many requests wait, pledges and payments get one batched lookup at a time; pledges added meanwhile are
part of the next one. With many waiting requests, or while a service does not answer, lookups become less
frequent, so that they do not slow down new pledges.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from prometheus_client import Gauge

from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from gateway.http.asgi import ClientDisconnected

MAX_WAIT_S: Final = 30.0
POLL_INTERVAL_S: Final = 0.05
MAX_POLL_INTERVAL_S: Final = 0.25
BUSY_WAITERS: Final = 256
"""With more waiting requests than this, lookups are less frequent."""
MAX_IDS: Final = 500
"""Pledges in one lookup."""

_WAIT: Final = re.compile(
    r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,6})\"?\s*(?:$|[,;])", re.ASCII | re.IGNORECASE
)

_WAITING = Gauge("ataa_gateway_waiting", "Responses held by Prefer: wait.")

log = structlog.get_logger()

Facts = Mapping[str, Any]


def preferred_wait_s(prefer: str | None) -> float:
    """The seconds of `Prefer: wait=n` (RFC 7240, 4.3), at most 30; 0 without it."""
    found = _WAIT.search(prefer or "")
    return min(float(found.group(1)), MAX_WAIT_S) if found else 0.0


def pledge_view(pledge: Facts, checkout: Facts | None) -> dict[str, Any]:
    """The public pledge, combined from the entry of pledges and the entry of payments.

    `status` is that of payments once money has moved or the checkout session has ended, else that of pledges.
    """
    known = checkout or {}
    shown = {name: value for name, value in pledge.items() if name not in ("checkout", "queue", "status")}
    token, created = shown.pop("token", None), shown.pop("created_at", None)
    return {
        **shown,
        "status": status_of(pledge, known),
        "checkout": known.get("checkout"),
        "queue": known.get("queue"),
        "token": token,
        "created_at": created,
    }


def status_of(pledge: Facts, known: Facts) -> str:
    """The status of payments once money has moved or the session has ended, else that of pledges.

    A cancelled pledge stays cancelled when its session lapses.
    """
    status: str = known.get("status") or pledge["status"]
    return "cancelled" if status == "lapsed" and pledge["status"] == "cancelled" else status


class BatchLookup:
    """Batches lookups by id at an internal route of a service that takes `{"ids": […]}`."""

    def __init__(self, client: ServiceClient, secret: str, path: str) -> None:
        self._client = client
        self._secret = secret
        self._path = path
        self._pending: dict[str, asyncio.Future[Facts | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def look_up(self, pledge_id: str) -> Facts | None:
        """The service's entry for a pledge; None if it has none. Raises `ServiceUnavailable`."""
        return (await self.look_up_all([pledge_id]))[pledge_id]

    async def look_up_all(self, pledge_ids: Sequence[str]) -> dict[str, Facts | None]:
        """The entries for several pledges; raises `ServiceUnavailable`."""
        loop = asyncio.get_running_loop()
        futures = {}
        for pledge_id in pledge_ids:
            if pledge_id not in self._pending:
                self._pending[pledge_id] = loop.create_future()
            futures[pledge_id] = self._pending[pledge_id]
        if self._task is None and futures:
            self._task = asyncio.create_task(self._run())
        return {pledge_id: await asyncio.shield(future) for pledge_id, future in futures.items()}

    async def _run(self) -> None:
        try:
            while self._pending:
                await asyncio.sleep(0)  # collect all lookups of this iteration of the event loop
                batch = dict(list(self._pending.items())[:MAX_IDS])
                for pledge_id in batch:
                    del self._pending[pledge_id]
                await self._fetch(batch)
        finally:
            self._task = None

    async def _fetch(self, batch: Mapping[str, asyncio.Future[Facts | None]]) -> None:
        try:
            found = (await post_internal(self._client, self._secret, self._path, {"ids": list(batch)}))[
                "data"
            ]
        except Exception as error:
            for future in batch.values():
                future.set_exception(error)
                future.exception()  # mark it as retrieved: the waiting request may be gone
            return
        for pledge_id, future in batch.items():
            future.set_result(found.get(pledge_id))


Seen = tuple[Facts | None, Facts | None]
"""The entries of pledges and payments for a pledge."""


class _Wait:
    __slots__ = ("done", "enough", "pledge_id", "seen", "with_pledge")

    def __init__(
        self, pledge_id: str, enough: Callable[[Facts | None, Facts | None], bool], with_pledge: bool
    ) -> None:
        self.pledge_id = pledge_id
        self.enough = enough
        self.with_pledge = with_pledge
        self.seen: Seen | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Waits:
    """The requests that wait for a pledge, and the task that polls for all of them."""

    def __init__(self, pledges: BatchLookup, checkouts: BatchLookup, max_waiting: int) -> None:
        self.pledges = pledges
        self.checkouts = checkouts
        self._max_waiting = max_waiting
        self._waiting: set[_Wait] = set()
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        _WAITING.set_function(lambda: len(self._waiting))

    @property
    def full(self) -> bool:
        """Whether no further request may wait."""
        return self._draining or len(self._waiting) >= self._max_waiting

    async def until(
        self,
        pledge_id: str,
        enough: Callable[[Facts | None, Facts | None], bool],
        timeout_s: float,
        disconnected: Callable[[], Awaitable[None]],
        *,
        with_pledge: bool,
    ) -> Seen | None:
        """Wait until `enough(pledge entry, checkout entry)`, `timeout_s` or a drain; the last entries.

        The entry of pledges is looked up only `with_pledge`. Raises `ClientDisconnected` if `disconnected()`
        returns before that.
        """
        wait = _Wait(pledge_id, enough, with_pledge)
        self._waiting.add(wait)
        if self._task is None:
            self._task = asyncio.create_task(self._poll())
        leaving = asyncio.ensure_future(disconnected())
        try:
            await asyncio.wait((wait.done, leaving), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and not wait.done.done():
                raise ClientDisconnected
            return wait.seen
        finally:
            self._waiting.discard(wait)
            leaving.cancel()

    def drain(self) -> None:
        """End every wait with what was last seen, and accept no new one."""
        self._draining = True
        for wait in self._waiting:
            if not wait.done.done():
                wait.done.set_result(None)

    async def _poll(self) -> None:
        try:
            while self._waiting:
                poll_fast = len(self._waiting) <= BUSY_WAITERS
                try:
                    await self._poll_once()
                except ServiceUnavailable as error:
                    log.warning("waits.lookup_failed", error=str(error))
                    poll_fast = False
                await asyncio.sleep(POLL_INTERVAL_S if poll_fast else MAX_POLL_INTERVAL_S)
        finally:
            self._task = None

    async def _poll_once(self) -> None:
        waiting = [wait for wait in self._waiting if not wait.done.done()]
        ids = list({wait.pledge_id for wait in waiting})
        pledge_ids = list({wait.pledge_id for wait in waiting if wait.with_pledge})
        checkouts, pledges = await asyncio.gather(
            self.checkouts.look_up_all(ids), self.pledges.look_up_all(pledge_ids)
        )
        for wait in waiting:
            wait.seen = (pledges.get(wait.pledge_id), checkouts.get(wait.pledge_id))
            if not wait.done.done() and wait.enough(*wait.seen):
                wait.done.set_result(None)
