"""Donors' display texts: what pledges approved for showing, copied into an erasable table.

They are fetched beside the figures and never delay them. `DisplayTexts.request` names pledges whose texts are
about to be needed; a worker fetches those not kept yet, many at a time, and calls `on_stored`. They are
requested when the pledge is made, so that most are kept before it is paid, and again when it is counted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client import Gauge
from sqlalchemy import select

from backbone.adaptive_interval import AdaptiveInterval
from backbone.contracts import MessageModerated, PaymentChanged, PledgeMade
from backbone.contracts.pledges import MessageState
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction, after_commit
from backbone.database.transient import is_transient
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from backbone.messaging.consumer import Handler, Handlers
from services.leaderboard.statements import statements
from services.leaderboard.tables import display_texts

REQUEST_TIMEOUT_S: Final = 2.0
"""Deadline of a request to pledges."""
RETRY_S: Final = 1.0
"""Pause after the end of a request that failed; it doubles with every further one, up to `MAX_RETRY_S`."""
MAX_RETRY_S: Final = 15.0
ROUND_INTERVAL_S: Final = 0.02
MAX_IN_FLIGHT: Final = 4
"""Requests to pledges under way."""
MAX_PER_REQUEST: Final = 500
"""Pledges in a request."""
MAX_REQUESTED: Final = 10_000
"""Pledges waited for. Past it the oldest are dropped: what is still shown is requested again."""
MAX_PER_DRIVE: Final = 20
"""Donations of a drive whose texts a batch of payments requests: no more are shown."""

log = structlog.get_logger()

_WAITING = Gauge("ataa_leaderboard_texts_waiting", "Donations whose display texts are not fetched yet.")


class DonorTexts(NamedTuple):
    """What is shown of a donation's donor; without a name, "anonymous"."""

    name: str | None
    message: str | None


ANONYMOUS: Final = DonorTexts(None, None)


class DisplayTexts:
    """The texts that pledges approved for showing, by pledge; each is requested once and then kept."""

    def __init__(
        self,
        database: Database,
        pledges: ServiceClient,
        secret: str,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self.on_stored: Callable[[Collection[str]], None] = lambda _: None
        """Called with pledges whose texts can be read from now on, also where they could be before."""
        self._database = database
        self._pledges = pledges
        self._secret = secret
        self._request_timeout_s = request_timeout_s
        self._retry_s = retry_s
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._failures = 0
        self._not_before = 0.0
        self._requested: dict[str, None] = {}
        self._lately_kept: dict[str, None] = {}
        """The newest `MAX_REQUESTED` pledges with stored texts: counting their donations needs no second
        read."""
        self._news = asyncio.Event()
        _WAITING.set_function(lambda: len(self._requested))

    def request(self, pledge_ids: Iterable[str]) -> None:
        """Have these pledges' texts fetched as soon as pledges answers; returns at once."""
        self._requested |= dict.fromkeys(pledge_ids)
        while len(self._requested) > MAX_REQUESTED:
            del self._requested[next(iter(self._requested))]
        if self._requested:
            self._news.set()

    def requested_by(self, handlers: Handlers) -> Handlers:
        """`handlers` that request texts of what is made, counted or moderated."""
        return {
            **handlers,
            PledgeMade: self._requesting(handlers[PledgeMade], _newest_pledges),
            PaymentChanged: self._requesting(handlers[PaymentChanged], _newest_donations),
            MessageModerated: self._requesting_again(handlers[MessageModerated]),
        }

    def _requesting_again(self, handle: Handler) -> Handler:
        async def handle_and_request(events: Sequence[MessageModerated], session: Transaction) -> None:
            await handle(events, session)
            moderated = [event.pledge_id for event in events if event.state != MessageState.HIDDEN]
            after_commit(session, lambda: self.request(moderated))

        return handle_and_request

    def _requesting(self, handle: Handler, newest: Callable[[Sequence[Any]], list[str]]) -> Handler:
        async def handle_and_request(events: Sequence[Any], session: Transaction) -> None:
            await handle(events, session)
            wanted = [one for one in newest(events) if one not in self._lately_kept]
            after_commit(session, lambda: self.request(wanted))

        return handle_and_request

    async def run(self, stop: asyncio.Event) -> None:
        """Fetch what is requested until `stop`; while pledges cannot be asked it stays requested."""
        interval = AdaptiveInterval(ROUND_INTERVAL_S)
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                waiting = asyncio.create_task(self._news.wait())
                await asyncio.wait((stopping, waiting), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                await self._wait_for_pledges(stopping)
                await interval.wait()
                began = asyncio.get_running_loop().time()
                fetching = asyncio.create_task(self.fetch_requested())
                await asyncio.wait((stopping, fetching), return_when=asyncio.FIRST_COMPLETED)
                if not fetching.done():  # a pledges service that hangs holds up no shutdown
                    fetching.cancel()
                    await asyncio.wait((fetching,))
                    return
                interval.rest(began, fetching.result())
        finally:
            stopping.cancel()

    async def _wait_for_pledges(self, stopping: asyncio.Task[Any]) -> None:
        wait_s = self._not_before - asyncio.get_running_loop().time()
        if wait_s > 0:
            await asyncio.wait((stopping,), timeout=wait_s)

    async def fetch_requested(self) -> int:
        """One round: some of the texts requested, as far as they can be had now; how many were wanted."""
        wanted = list(self._requested)[:MAX_PER_REQUEST]
        for pledge_id in wanted:
            del self._requested[pledge_id]
        found: dict[str, DonorTexts] = {}
        try:
            found = await self.of(wanted)
        except Exception as error:
            if not is_transient(error):
                raise
            self._note_failure(asyncio.get_running_loop().time(), error)
        finally:
            self._requested |= dict.fromkeys(one for one in wanted if one not in found)
            if not self._requested:
                self._news.clear()
        self.on_stored(found.keys())
        return len(wanted)

    async def of(self, pledge_ids: Iterable[str]) -> dict[str, DonorTexts]:
        """The texts of these pledges, asking pledges for those not yet kept; some may be missing.

        It takes no longer than a read of the database and `request_timeout_s`.
        """
        wanted = list(dict.fromkeys(pledge_ids))
        if not wanted:
            return {}
        async with self._database.reading() as session:
            stored = _texts_by_pledge(await session.execute(_STORED, {"wanted": wanted}))
        return stored | await self._fetch([one for one in wanted if one not in stored][:MAX_PER_REQUEST])

    async def _fetch(self, wanted: Sequence[str]) -> dict[str, DonorTexts]:
        """Ask pledges for these and keep them; nothing while pledges cannot be asked."""
        began = asyncio.get_running_loop().time()
        if not wanted or began < self._not_before:
            return {}
        try:
            async with asyncio.timeout(self._request_timeout_s), self._slots:
                answer = await post_internal(self._pledges, self._secret, "/internal/words", {"ids": wanted})
        except (ServiceUnavailable, TimeoutError) as error:
            self._note_failure(began, error)
            return {}
        self._failures = 0
        return await self._store([_stored_row(one, answer["data"].get(one)) for one in wanted])

    def _note_failure(self, began: float, error: Exception) -> None:
        if began < self._not_before:
            return  # under way together with one that failed before: one outage, not two
        wait_s = min(self._retry_s * 2**self._failures, MAX_RETRY_S)
        self._failures += 1
        self._not_before = asyncio.get_running_loop().time() + wait_s
        log.warning(
            "display_texts.unavailable", reason=str(error) or type(error).__name__, again_after_s=wait_s
        )

    async def _store(self, found: Iterable[Mapping[str, Any]]) -> dict[str, DonorTexts]:
        """Keep the texts found; those of them that may be shown, anonymous where they are outdated already.

        A decision may have been announced while pledges answered: then the newer texts are requested, too.
        """
        # In one order, as everywhere: the stream's texts and a snapshot's are kept at the same moment.
        rows = sorted(found, key=lambda row: str(row["pledge_id"]))
        wanted = [row["pledge_id"] for row in rows]
        async with self._database.lossy_transaction() as session:
            await session.execute(statements(session).keep_display_texts, rows)
            kept = _texts_by_pledge(await session.execute(_STORED, {"wanted": wanted}))
        crash_point("leaderboard.words.after_commit")
        self._lately_kept |= dict.fromkeys(wanted)
        while len(self._lately_kept) > MAX_REQUESTED:
            del self._lately_kept[next(iter(self._lately_kept))]
        self.on_stored(wanted)
        return dict.fromkeys(wanted, ANONYMOUS) | kept


_STORED: Final = select(display_texts).where(
    one_of(display_texts.c.pledge_id, "wanted"), display_texts.c.version >= display_texts.c.decided
)
"""Texts that follow the newest decision."""


def _texts_by_pledge(rows: Iterable[Any]) -> dict[str, DonorTexts]:
    return {row.pledge_id: DonorTexts(row.name, row.message) for row in rows}


def _newest_pledges(events: Iterable[PledgeMade]) -> list[str]:
    """Each drive's newest pledges."""
    made: defaultdict[str, list[str]] = defaultdict(list)
    for event in events:
        made[event.drive_id].append(event.pledge_id)
    return [pledge_id for pledge_ids in made.values() for pledge_id in pledge_ids[-MAX_PER_DRIVE:]]


def _newest_donations(events: Iterable[PaymentChanged]) -> list[str]:
    """The pledges of each drive's newest counted payments."""
    donations: defaultdict[str, list[str]] = defaultdict(list)
    for event in events:
        if event.pledge_id is None or event.in_other_drive:
            continue
        if event.captured.minor_units > 0 and not event.held:
            donations[event.drive_id].append(event.pledge_id)
    return [pledge_id for pledge_ids in donations.values() for pledge_id in pledge_ids[-MAX_PER_DRIVE:]]


def _stored_row(pledge_id: str, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The row of what pledges answered for a pledge; None where it does not know the pledge."""
    answer = found or {"name": None, "message": None}
    version = answer.get("version", 0)  # pledges of an earlier version have none
    texts = {"name": answer["name"], "message": answer["message"]}
    return {"pledge_id": pledge_id, **texts, "version": version, "decided": version}
