"""Reading a file or URL in the format of the ECB's eurofxref XML: rates of one euro in other currencies.

Format: https://www.ecb.europa.eu/stats/policy_and_exchange_rates/euro_reference_exchange_rates (a `Cube` with
`time`, and in it one `Cube` for each `currency` with its `rate`). A file with several days is read for its
newest one. A document type is refused, and with it every entity (OWASP, XML external entities).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.parsers import expat

import aiohttp

from backbone.exchange_rates import PIVOT, is_rate
from backbone.money import DIGITS

MAX_BYTES: Final = 1024 * 1024
"""The daily list has 2 KiB, the one of 90 days 60 KiB."""
TIMEOUT_S: Final = 10.0
PUBLISHED_FOR: Final = time(12, 15, tzinfo=UTC)
"""The moment for which the ECB publishes: 14:15 in Frankfurt in summer; an hour too early in winter."""


class UnreadableRates(ValueError):
    """The list of rates cannot be read; the text says why."""


class RateList(NamedTuple):
    """Rates of one euro, by currency, and the moment for which they were published."""

    as_of: datetime
    rates: Mapping[str, str]


async def read_list(source: str) -> RateList:
    """The list at a file or URL. Raises `UnreadableRates`, also where it cannot be reached."""
    if source.startswith(("http://", "https://")):
        return parse_list(await _download(source))
    return parse_list(await asyncio.to_thread(_read_file, Path(source)))


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableRates(f"{path}: {error.strerror}") from None


async def _download(url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise UnreadableRates(f"{url} answered {answer.status}")
            body = b""
            async for chunk in answer.content.iter_chunked(64 * 1024):
                body += chunk
                if len(body) > MAX_BYTES:
                    break
            return body
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise UnreadableRates(f"{url}: {error or type(error).__name__}") from None


class _Reader:
    """Collects the rates of each day while expat parses."""

    def __init__(self) -> None:
        self.days: dict[date, dict[str, str]] = {}
        self._day: dict[str, str] | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2] != "Cube":
            return
        if "time" in attributes:
            self._day = self.days.setdefault(_day(attributes["time"]), {})
        if "currency" not in attributes:
            return
        currency, rate = attributes["currency"], attributes.get("rate", "")
        if self._day is None:
            raise UnreadableRates("a rate is of no day")
        if not is_rate(rate):
            raise UnreadableRates(f"the rate of {currency!r} is no decimal number above zero: {rate!r}")
        if self._day.setdefault(currency, rate) != rate:
            raise UnreadableRates(f"{currency} has two rates on one day")

    def refuse(self, *_declared: Any) -> None:
        raise UnreadableRates("it declares a document type or an entity")


def parse_list(document: bytes) -> RateList:
    """The rates of the newest day, in currencies of ISO 4217. Raises `UnreadableRates`."""
    if len(document) > MAX_BYTES:
        raise UnreadableRates(f"more than {MAX_BYTES} bytes")
    reader, parser = _Reader(), expat.ParserCreate()
    parser.StartElementHandler = reader.start
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    try:
        parser.Parse(document, True)
    except UnreadableRates:
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two: an encoding expat lacks
        raise UnreadableRates(f"it is no XML: {error}") from None
    if not reader.days:
        raise UnreadableRates("it has no day with rates")
    newest = max(reader.days)
    rates = {name: rate for name, rate in reader.days[newest].items() if name in DIGITS and name != PIVOT}
    if not rates:
        raise UnreadableRates("it has no rates")
    return RateList(datetime.combine(newest, PUBLISHED_FOR), rates)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UnreadableRates(f"{text[:20]!r} is no day") from None
