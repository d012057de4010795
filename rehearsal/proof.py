"""The proof: the books of four systems, read from each, and whether they agree to the cent.

A book is the net amount a currency: captured - refunded - open or lost disputes, without fees. The sandbox's
is independent: it shares neither code nor data with the three services.
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
from rehearsal.installation import Installation

Book = Mapping[str, Decimal]
"""Net amount by ISO currency; a missing currency is zero."""

OWNERS: Final = {"ledger": "payments", "totals": "leaderboard", "pledges": "pledges"}
"""The service that owns each book of the report."""

DRAIN_LIMIT_S: Final = 120.0
_POLL_S: Final = 1.0
_STABLE_S: Final = 6.0
"""Books that agree unchanged for this long are final, even if something expected (a dispute) never came."""
_LOG_PAGE: Final = 100
_PAGES_A_LOOK: Final = 200
_DELIVERIES_PAGE: Final = 10_000


class Unreadable(Exception):
    """The books of a system could not be read; the message names it and the reason."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The four books, read at one time, and the parts of the sandbox's."""

    books: Mapping[str, Book]
    captured: Decimal
    refunded: Decimal
    disputed: Decimal

    def since(self, before: "Readings") -> "Readings":
        """The difference of each book and part from `before`."""
        books = {name: _subtract(book, before.books.get(name, {})) for name, book in self.books.items()}
        return Readings(
            books,
            self.captured - before.captured,
            self.refunded - before.refunded,
            self.disputed - before.disputed,
        )


def _subtract(book: Book, before: Book) -> Book:
    zero = Decimal("0.00")
    currencies = sorted({*book, *before})
    changed = {one: book.get(one, zero) - before.get(one, zero) for one in currencies}
    return {one: amount for one, amount in changed.items() if amount or one == CURRENCY}


@dataclass(frozen=True, slots=True)
class Proof:
    """The result once the books are final (`drained`), or when the time limit was reached."""

    drained: bool
    books: Mapping[str, Book]
    difference: Book
    given: int
    counted: int
    lost: tuple[str, ...]
    counted_twice: tuple[str, ...]
    uncaptured: Decimal
    read_error: str | None

    @property
    def holds(self) -> bool:
        """Whether the books agree to the cent and each paid donation was counted once."""
        agreed = bool(self.books) and not any(self.difference.values())
        return agreed and not (self.lost or self.counted_twice or self.uncaptured)


def difference(books: Mapping[str, Book]) -> Book:
    """The largest difference between two books, by currency; always includes the drive's currency."""
    currencies = {CURRENCY}.union(*books.values())
    spread = {}
    for currency in sorted(currencies):
        amounts = [book.get(currency, Decimal("0.00")) for book in books.values()] or [Decimal("0.00")]
        spread[currency] = max(amounts) - min(amounts)
    return spread


class Auditor:
    """Reads the books, the drive's log and the sandbox's deliveries of an installation."""

    def __init__(
        self, installation: Installation, session: aiohttp.ClientSession, freshness: Freshness
    ) -> None:
        self._installation = installation
        self._session = session
        self._freshness = freshness
        self._baseline: Readings | None = None

    async def record_baseline(self, within_s: float = DRAIN_LIMIT_S) -> None:
        """On a shared installation: record the books, so that later reads return the differences.

        Waits until they agree and do not change. Raises Unreadable where they do not within `within_s`.
        """
        if not self._installation.shared:
            return
        give_up = time.monotonic() + within_s
        before = await self.read_books()
        while True:
            await asyncio.sleep(_POLL_S)
            found = await self.read_books()
            if found == before and not any(difference(found.books).values()):
                break
            if time.monotonic() > give_up:
                apart = ", ".join(f"{amount} {one}" for one, amount in difference(found.books).items())
                raise Unreadable(f"the books of the running stack keep changing (difference: {apart})")
            before = found
        await self._skip_deliveries()
        self._baseline = found

    async def _skip_deliveries(self) -> None:
        freshness = self._freshness
        rows = _DELIVERIES_PAGE
        while rows == _DELIVERIES_PAGE:
            query = f"after={freshness.deliveries_read}&limit={_DELIVERIES_PAGE}"
            page = await self._get(f"{self._installation.sandbox_url}/_sandbox/deliveries?{query}")
            rows = len(page["data"])
            freshness.note_deliveries((), int(page["next"] or freshness.deliveries_read))

    async def read_books(self) -> Readings:
        """Each system's own figures since `record_baseline`. Raises Unreadable."""
        found = await self._read_books()
        return found if self._baseline is None else found.since(self._baseline)

    async def _read_books(self) -> Readings:
        sandbox = await self._get(f"{self._installation.sandbox_url}/_sandbox/books")
        parts = {part: _amount(sandbox.get(CURRENCY, {}).get(part, "0.00")) for part in _PARTS}
        books: dict[str, Book] = {"sandbox": {currency: _net(row) for currency, row in sandbox.items()}}
        ports = self._read_file("ports.json")
        for name, owner in OWNERS.items():
            if owner not in ports:
                raise Unreadable(f"ports.json has no port of {owner}")
            found = await self._get(f"http://127.0.0.1:{ports[owner]}/internal/books", self._caller())
            books[name] = {currency: _amount(value) for currency, value in found.items()}
        return Readings(books, **parts)

    async def read_new(self) -> None:
        """Read the new rows of the log and of the sandbox's deliveries. Raises Unreadable."""
        freshness = self._freshness
        for _ in range(_PAGES_A_LOOK):
            query = f"after={freshness.log_sequence}&limit={_LOG_PAGE}"
            page = await self._get(
                f"{self._installation.gateway_url}/v1/drives/{self._installation.drive}/events?{query}"
            )
            freshness.note_log(page["data"])
            if len(page["data"]) < _LOG_PAGE:
                break
        for _ in range(_PAGES_A_LOOK):
            query = f"after={freshness.deliveries_read}&limit={_DELIVERIES_PAGE}"
            page = await self._get(f"{self._installation.sandbox_url}/_sandbox/deliveries?{query}")
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
            raise Unreadable(f"{url}: not a JSON object")
        return found

    def _read_file(self, name: str) -> Mapping[str, Any]:
        """A JSON file of the installation, read each time: a restart rewrites it."""
        try:
            found = json.loads((self._installation.directory / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Unreadable(f"{name}: {error}") from error
        return found if isinstance(found, dict) else {}

    def _caller(self) -> Mapping[str, str]:
        """The headers that authenticate internal requests."""
        # Imports the web framework, whose cost must not fall into the measured run.
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
    """Captured - refunded - disputed; processing fees are not part of a book."""
    captured, refunded, disputed = (_amount(row[part]) for part in _PARTS)
    return captured - refunded - disputed


async def settle(
    auditor: Auditor,
    tally: Tally,
    freshness: Freshness,
    waiting: Callable[[str], Awaitable[None]],
    limit_s: float,
) -> Proof:
    """Wait until the books agree and do not change, at most `limit_s`, and return the proof in either case.

    `waiting` is called each second with what is still pending.
    """
    give_up = time.monotonic() + limit_s
    previous: Readings | None = None
    stable_since = time.monotonic()
    while True:
        readings, read_error = await _read(auditor)
        now = time.monotonic()
        pending = read_error or (_pending(readings, tally, freshness) if readings else None)
        agrees = readings is not None and not any(difference(readings.books).values())
        stable = agrees and readings == previous
        if not stable:
            previous, stable_since = readings, now
        if stable and (pending is None or (read_error is None and now - stable_since >= _STABLE_S)):
            return _proof(True, readings, tally, freshness, None)
        if now > give_up:
            return _proof(False, readings, tally, freshness, read_error or pending)
        await waiting(pending or "stable books")
        await asyncio.sleep(_POLL_S)


async def _read(auditor: Auditor) -> tuple[Readings | None, str | None]:
    readings = None
    try:
        readings = await auditor.read_books()
        await auditor.read_new()
    except Unreadable as unreadable:
        return readings, str(unreadable)
    return readings, None


def _pending(readings: Readings, tally: Tally, freshness: Freshness) -> str | None:
    """What the donors' actions still have to cause; None when nothing is pending."""
    apart = {currency: amount for currency, amount in difference(readings.books).items() if amount}
    if apart:
        return "the books to agree; difference: " + ", ".join(f"{apart[c]} {c}" for c in apart)
    if readings.captured < _dollars(tally.given_cents):
        return "captures at the sandbox"
    if readings.disputed < _dollars(tally.disputed_cents):
        return "the disputes"
    if readings.refunded != _dollars(tally.refunded_cents):
        return "the refunds"
    uncounted = sum(pledge not in freshness.counted for pledge in tally.paid)
    if uncounted:
        return f"{uncounted} donations in the drive's log"
    if any(freshness.seen_at(sequence) is None for sequence in freshness.counted.values()):
        return "the last donations in the live stream"
    return None


def _proof(
    drained: bool, readings: Readings | None, tally: Tally, freshness: Freshness, read_error: str | None
) -> Proof:
    books = readings.books if readings else {}
    captured = readings.captured if readings else Decimal("0.00")
    return Proof(
        drained=drained,
        books=books,
        difference=difference(books),
        given=len(tally.paid),
        counted=len(freshness.counted),
        lost=tuple(pledge for pledge in tally.paid if pledge not in freshness.counted),
        counted_twice=tuple(freshness.counted_twice),
        uncaptured=max(Decimal("0.00"), _dollars(tally.given_cents) - captured),
        read_error=read_error,
    )


def _dollars(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)
