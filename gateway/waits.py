"""`Prefer: wait`: replies held until something changes, all of them asked about in one question.

However many wait, pledges and payments get one question at a time: whoever asks while one is under
way goes with the next. How often is measured by what a question costs, so that under load the
questions slow down before they slow the donate path.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import structlog
from prometheus_client import Gauge

from backbone.peer import Peer, PeerUnavailable, ask
from gateway.asgi import ClientLeft

LONGEST_WAIT_S: Final = 30.0
PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 0.25
MANY: Final = 256
"""With more waiting than this the question is no small one any more: it is asked less often."""
MOST_IDS: Final = 500
"""Asked about in one question."""

_WAIT: Final = re.compile(
    r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,6})\"?\s*(?:$|[,;])", re.ASCII | re.IGNORECASE
)

_WAITING = Gauge("ataa_gateway_waiting", "Replies held by Prefer: wait.")

log = structlog.get_logger()

Facts = Mapping[str, Any]


def wait_of(prefer: str | None) -> float:
    """Seconds that `Prefer: wait=n` asks for (RFC 7240, 4.3), at most 30; 0 without it."""
    found = _WAIT.search(prefer or "")
    return min(float(found.group(1)), LONGEST_WAIT_S) if found else 0.0


def compose(pledge: Facts, checkout: Facts | None) -> dict[str, Any]:
    """The public pledge: the promise as pledges tells it, what became of it as payments does.

    Payments has the last word on `status` once money moved or the session ended, else pledges.
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
    """Payments' word once money moved or the session ended, else pledges'.

    The session of a cancelled pledge ends too: that is no news.
    """
    said: str = known.get("status") or pledge["status"]
    return "cancelled" if said == "lapsed" and pledge["status"] == "cancelled" else said


class Question:
    """One of a service's `/internal` doors that takes `{"ids": […]}`, asked once for all who ask."""

    def __init__(self, peer: Peer, secret: str, path: str) -> None:
        self._peer = peer
        self._secret = secret
        self._path = path
        self._asking: dict[str, asyncio.Future[Facts | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def about(self, pledge_id: str) -> Facts | None:
        """What the service knows of one pledge, None where it knows nothing; raises `PeerUnavailable`."""
        return (await self.about_all([pledge_id]))[pledge_id]

    async def about_all(self, pledge_ids: Sequence[str]) -> dict[str, Facts | None]:
        """The same for many; raises `PeerUnavailable`."""
        loop = asyncio.get_running_loop()
        futures = {}
        for pledge_id in pledge_ids:
            if pledge_id not in self._asking:
                self._asking[pledge_id] = loop.create_future()
            futures[pledge_id] = self._asking[pledge_id]
        if self._task is None and futures:
            self._task = asyncio.create_task(self._ask())
        return {pledge_id: await asyncio.shield(future) for pledge_id, future in futures.items()}

    async def _ask(self) -> None:
        try:
            while self._asking:
                await asyncio.sleep(0)  # those of the same turn of the loop go together
                batch = dict(list(self._asking.items())[:MOST_IDS])
                for pledge_id in batch:
                    del self._asking[pledge_id]
                await self._ask_about(batch)
        finally:
            self._task = None

    async def _ask_about(self, batch: Mapping[str, asyncio.Future[Facts | None]]) -> None:
        try:
            found = (await ask(self._peer, self._secret, self._path, {"ids": list(batch)}))["data"]
        except Exception as error:
            for future in batch.values():
                future.set_exception(error)
                future.exception()  # whoever asked may have left
            return
        for pledge_id, future in batch.items():
            future.set_result(found.get(pledge_id))


Seen = tuple[Facts | None, Facts | None]
"""What pledges and payments know of a pledge (the entries of their `/internal` doors)."""


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
    """Everybody who waits for a pledge, and the one poller that asks for all of them."""

    def __init__(self, pledges: Question, checkouts: Question, at_most: int) -> None:
        self.pledges = pledges
        self.checkouts = checkouts
        self._at_most = at_most
        self._waiting: set[_Wait] = set()
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        _WAITING.set_function(lambda: len(self._waiting))

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return self._draining or len(self._waiting) >= self._at_most

    async def until(
        self,
        pledge_id: str,
        enough: Callable[[Facts | None, Facts | None], bool],
        timeout_s: float,
        left: Callable[[], Awaitable[None]],
        *,
        with_pledge: bool,
    ) -> Seen | None:
        """Wait until `enough(pledge entry, checkout entry)`, `timeout_s`, or a drain; what was seen last.

        Pledges is only asked `with_pledge`. Raises `ClientLeft` where `left()` returns before that.
        """
        wait = _Wait(pledge_id, enough, with_pledge)
        self._waiting.add(wait)
        if self._task is None:
            self._task = asyncio.create_task(self._poll())
        gone = asyncio.ensure_future(left())
        try:
            await asyncio.wait((wait.done, gone), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not wait.done.done():
                raise ClientLeft
            return wait.seen
        finally:
            self._waiting.discard(wait)
            gone.cancel()

    def drain(self) -> None:
        """Let everybody go with what is known, and hold nobody any more."""
        self._draining = True
        for wait in self._waiting:
            if not wait.done.done():
                wait.done.set_result(None)

    async def _poll(self) -> None:
        try:
            while self._waiting:
                few = len(self._waiting) <= MANY
                try:
                    await self._look()
                except PeerUnavailable as error:
                    log.warning("waits.unanswered", error=str(error))
                    few = False
                await asyncio.sleep(PAUSE_S if few else LONGEST_PAUSE_S)
        finally:
            self._task = None

    async def _look(self) -> None:
        waiting = [wait for wait in self._waiting if not wait.done.done()]
        ids = list({wait.pledge_id for wait in waiting})
        pledge_ids = list({wait.pledge_id for wait in waiting if wait.with_pledge})
        checkouts, pledges = await asyncio.gather(
            self.checkouts.about_all(ids), self.pledges.about_all(pledge_ids)
        )
        for wait in waiting:
            wait.seen = (pledges.get(wait.pledge_id), checkouts.get(wait.pledge_id))
            if not wait.done.done() and wait.enough(*wait.seen):
                wait.done.set_result(None)
