"""The proof: each owner's books, asked of it alone, and whether they say the same to the cent.

Books are the net of processor money a currency (captured - refunded - open or lost disputes), without
fees (API.md, Reports). The sandbox is the outside witness: it shares nothing with the other three.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import aiohttp

from rehearsal.amounts import CURRENCY
from rehearsal.donors import Tally
from rehearsal.freshness import Freshness
from rehearsal.stage import Stage

Book = Mapping[str, Decimal]
"""Net per ISO currency; a currency that is missing is zero."""

OWNERS: Final = {"ledger": "payments", "totals": "leaderboard", "pledges": "pledges"}
"""Whose books stand for which column of the report."""

QUIET_LIMIT_S: Final = 120.0
_LOOK_S: Final = 1.0
_STILL_S: Final = 6.0
"""Books that agree and rest this long are quiet even if something expected (a dispute, say) never came."""
_LOG_PAGE: Final = 100
_PAGES_A_LOOK: Final = 200
_DELIVERIES_PAGE: Final = 10_000


class Unreadable(Exception):
    """An owner did not show its books; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Witnesses:
    """The four books of one moment, and the parts of the sandbox's."""

    books: Mapping[str, Book]
    captured: Decimal
    refunded: Decimal
    disputed: Decimal

    def since(self, before: "Witnesses") -> "Witnesses":
        """What was added to each book and part after `before`."""
        books = {name: _less(book, before.books.get(name, {})) for name, book in self.books.items()}
        return Witnesses(
            books,
            self.captured - before.captured,
            self.refunded - before.refunded,
            self.disputed - before.disputed,
        )


def _less(book: Book, before: Book) -> Book:
    zero = Decimal("0.00")
    currencies = sorted({*book, *before})
    changed = {one: book.get(one, zero) - before.get(one, zero) for one in currencies}
    return {one: amount for one, amount in changed.items() if amount or one == CURRENCY}


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found once all was quiet, or when waiting for that ended (`quiet` says which)."""

    quiet: bool
    books: Mapping[str, Book]
    difference: Book
    given: int
    counted: int
    lost: tuple[str, ...]
    counted_twice: tuple[str, ...]
    uncaptured: Decimal
    complaint: str | None

    @property
    def holds(self) -> bool:
        """Whether not one cent is missing or too much, and each gift was counted once."""
        agreed = bool(self.books) and not any(self.difference.values())
        return agreed and not (self.lost or self.counted_twice or self.uncaptured)


def difference(books: Mapping[str, Book]) -> Book:
    """The largest disagreement between any two books, a currency; always names the drive's currency."""
    currencies = {CURRENCY}.union(*books.values())
    spread = {}
    for currency in sorted(currencies):
        amounts = [book.get(currency, Decimal("0.00")) for book in books.values()] or [Decimal("0.00")]
        spread[currency] = max(amounts) - min(amounts)
    return spread


class Auditor:
    """Reads books, the drive's log and the sandbox's deliveries of one stage."""

    def __init__(self, stage: Stage, session: aiohttp.ClientSession, freshness: Freshness) -> None:
        self._stage = stage
        self._session = session
        self._freshness = freshness
        self._before: Witnesses | None = None

    async def begin(self, within_s: float = QUIET_LIMIT_S) -> None:
        """On a shared stage: note what the books hold, so that only what comes later is read.

        Waits until they agree and rest. Raises Unreadable where they do not within `within_s`.
        """
        if not self._stage.shared:
            return
        give_up = time.monotonic() + within_s
        before = await self.read_books()
        while True:
            await asyncio.sleep(_LOOK_S)
            found = await self.read_books()
            if found == before and not any(difference(found.books).values()):
                break
            if time.monotonic() > give_up:
                apart = ", ".join(f"{amount} {one}" for one, amount in difference(found.books).items())
                raise Unreadable(f"the books of the running stack do not rest (difference: {apart})")
            before = found
        await self._skip_deliveries()
        self._before = found

    async def _skip_deliveries(self) -> None:
        freshness = self._freshness
        rows = _DELIVERIES_PAGE
        while rows == _DELIVERIES_PAGE:
            query = f"after={freshness.deliveries_read}&limit={_DELIVERIES_PAGE}"
            page = await self._get(f"{self._stage.sandbox_url}/_sandbox/deliveries?{query}")
            rows = len(page["data"])
            freshness.note_deliveries((), int(page["next"] or freshness.deliveries_read))

    async def read_books(self) -> Witnesses:
        """Each owner's own figures since `begin`. Raises Unreadable."""
        found = await self._read_books()
        return found if self._before is None else found.since(self._before)

    async def _read_books(self) -> Witnesses:
        sandbox = await self._get(f"{self._stage.sandbox_url}/_sandbox/books")
        parts = {part: _amount(sandbox.get(CURRENCY, {}).get(part, "0.00")) for part in _PARTS}
        books: dict[str, Book] = {"sandbox": {currency: _net(row) for currency, row in sandbox.items()}}
        ports = self._read_file("ports.json")
        for name, owner in OWNERS.items():
            if owner not in ports:
                raise Unreadable(f"ports.json names no port of {owner}")
            found = await self._get(f"http://127.0.0.1:{ports[owner]}/internal/books", self._caller())
            books[name] = {currency: _amount(value) for currency, value in found.items()}
        return Witnesses(books, **parts)

    async def read_on(self) -> None:
        """Take in what the log and the sandbox's deliveries have gained since. Raises Unreadable."""
        freshness = self._freshness
        for _ in range(_PAGES_A_LOOK):
            query = f"after={freshness.log_sequence}&limit={_LOG_PAGE}"
            page = await self._get(f"{self._stage.gateway_url}/v1/drives/{self._stage.drive}/events?{query}")
            freshness.note_log(page["data"])
            if len(page["data"]) < _LOG_PAGE:
                break
        for _ in range(_PAGES_A_LOOK):
            query = f"after={freshness.deliveries_read}&limit={_DELIVERIES_PAGE}"
            page = await self._get(f"{self._stage.sandbox_url}/_sandbox/deliveries?{query}")
            freshness.note_deliveries(page["data"], int(page["next"] or freshness.deliveries_read))
            if len(page["data"]) < _DELIVERIES_PAGE:
                break

    async def _get(self, url: str, headers: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        try:
            async with self._session.get(url, headers=headers) as response:
                text = await response.read()
                if response.status != 200:
                    raise Unreadable(f"{url}: {response.status} {text[:200].decode(errors='replace')}")
                found = json.loads(text)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Unreadable(f"{url}: {type(error).__name__} {error}") from error
        if not isinstance(found, dict):
            raise Unreadable(f"{url}: not an object")
        return found

    def _read_file(self, name: str) -> Mapping[str, Any]:
        """One of the embedded run's files, read anew each time: a restart rewrites them."""
        try:
            found = json.loads((self._stage.directory / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Unreadable(f"{name}: {error}") from error
        return found if isinstance(found, dict) else {}

    def _caller(self) -> Mapping[str, str]:
        """The headers by which services know each other."""
        # Brings the whole web framework with it: not before the donors have left.
        from backbone.http.caller import sign_caller

        secret = str(self._read_file("secrets.json").get("internal", ""))
        return sign_caller(secret, partner="rehearsal", scopes=("internal",), mode="live")


_PARTS: Final = ("captured", "refunded", "disputed")


def _amount(value: object) -> Decimal:
    try:
        if isinstance(value, str) and (amount := Decimal(value)).is_finite():
            return amount
    except InvalidOperation:
        pass
    raise Unreadable(f"not an amount: {value!r}")


def _net(row: Mapping[str, Any]) -> Decimal:
    """Captured - refunded - disputed; the processor's fees are no donor's money."""
    captured, refunded, disputed = (_amount(row[part]) for part in _PARTS)
    return captured - refunded - disputed


async def settle(
    auditor: Auditor,
    tally: Tally,
    freshness: Freshness,
    waiting: Callable[[str], Awaitable[None]],
    limit_s: float,
) -> Proof:
    """Wait until the books agree and rest, at most `limit_s`, and say what was found either way.

    `waiting` is told each second what is still awaited.
    """
    give_up = time.monotonic() + limit_s
    still: Witnesses | None = None
    still_since = time.monotonic()
    while True:
        witnesses, complaint = await _look(auditor)
        now = time.monotonic()
        missing = complaint or (_awaited(witnesses, tally, freshness) if witnesses else None)
        agrees = witnesses is not None and not any(difference(witnesses.books).values())
        rests = agrees and witnesses == still
        if not rests:
            still, still_since = witnesses, now
        if rests and (missing is None or (complaint is None and now - still_since >= _STILL_S)):
            return _proof(True, witnesses, tally, freshness, None)
        if now > give_up:
            return _proof(False, witnesses, tally, freshness, complaint or missing)
        await waiting(missing or "the books to rest")
        await asyncio.sleep(_LOOK_S)


async def _look(auditor: Auditor) -> tuple[Witnesses | None, str | None]:
    witnesses = None
    try:
        witnesses = await auditor.read_books()
        await auditor.read_on()
    except Unreadable as unreadable:
        return witnesses, str(unreadable)
    return witnesses, None


def _awaited(witnesses: Witnesses, tally: Tally, freshness: Freshness) -> str | None:
    """What is still on its way, judged by what the donors did; None when nothing is."""
    apart = {currency: amount for currency, amount in difference(witnesses.books).items() if amount}
    if apart:
        return "the books to agree, apart by " + ", ".join(f"{apart[c]} {c}" for c in apart)
    if witnesses.captured < _dollars(tally.given_cents):
        return "the sandbox to capture what was paid"
    if witnesses.disputed < _dollars(tally.disputed_cents):
        return "the disputes"
    if witnesses.refunded != _dollars(tally.refunded_cents):
        return "the refunds"
    uncounted = sum(pledge not in freshness.counted for pledge in tally.paid)
    if uncounted:
        return f"{uncounted} gifts in the drive's log"
    if any(freshness.seen_at(sequence) is None for sequence in freshness.counted.values()):
        return "the last gifts on screen"
    return None


def _proof(
    quiet: bool, witnesses: Witnesses | None, tally: Tally, freshness: Freshness, complaint: str | None
) -> Proof:
    books = witnesses.books if witnesses else {}
    captured = witnesses.captured if witnesses else Decimal("0.00")
    return Proof(
        quiet=quiet,
        books=books,
        difference=difference(books),
        given=len(tally.paid),
        counted=len(freshness.counted),
        lost=tuple(pledge for pledge in tally.paid if pledge not in freshness.counted),
        counted_twice=tuple(freshness.counted_twice),
        uncaptured=max(Decimal("0.00"), _dollars(tally.given_cents) - captured),
        complaint=complaint,
    )


def _dollars(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)
