"""Setting, reading and refusing exchange rates, on both stores."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select

from backbone.clock import rfc3339
from backbone.contracts import DriveState, ExchangeRateSet, decode
from backbone.http.caller import sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.service import new_app
from services.payments.rates import api
from services.payments.rates.ecb import UnreadableRates
from services.payments.rates.store import find_rates
from services.payments.rates.worker import RateReader
from services.payments.tables import MESSAGING_TABLES
from tests.payments.books import Books
from tests.payments.harness import SECRET, a_drive

pytestmark = pytest.mark.parametrize("store", ["sqlite", "postgresql"])


class Api:
    """The routes over `books`."""

    def __init__(self, books: Books) -> None:
        self.books = books
        app = new_app("payments", SECRET)
        app.include_router(api.routes(books.database, books.clock))
        self._client = InProcessServiceClient(app)

    async def send(
        self, method: str, path: str, body: Any = None, scopes: tuple[str, ...] = ("admin",)
    ) -> ServiceResponse:
        headers = sign_caller(SECRET, partner="us", scopes=scopes, key_id="key_a")
        raw = b"" if body is None else json.dumps(body).encode()
        return await self._client.request(
            method, path, headers={"content-type": "application/json", **headers}, body=raw
        )

    async def put(self, pair: str, rate: str, ago: timedelta = timedelta(0), **other: Any) -> ServiceResponse:
        body = {"rate": rate, "as_of": rfc3339(self.books.clock.now() - ago)} | other
        return await self.send("PUT", f"/v1/rates/{pair}", body)

    async def listed(self) -> dict[str, Any]:
        reply = await self.send("GET", "/v1/rates", scopes=("drives",))
        assert reply.status == 200
        return {f"{one['from']}/{one['to']}": one for one in json.loads(reply.body)["data"]}


async def published(books: Books) -> list[ExchangeRateSet]:
    outbox = MESSAGING_TABLES.outbox
    async with books.database.reading() as session:
        rows = (await session.execute(select(outbox).order_by(outbox.c.number))).all()
    events = [decode(row.name, row.value) for row in rows]
    return [event for event in events if isinstance(event, ExchangeRateSet)]


def slug(reply: ServiceResponse) -> str:
    return str(json.loads(reply.body)["type"]).rpartition("/")[2]


def refusals(source: str, reason: str) -> float:
    labels = {"source": source, "reason": reason}
    return REGISTRY.get_sample_value("ataa_exchange_rates_refused_total", labels) or 0.0


async def test_a_rate_is_stored_listed_and_announced_once(books: Books) -> None:
    rates = Api(books)
    first = await rates.put("KWD/USD", "3.2581")
    assert (first.status, json.loads(first.body)["rate"]) == (200, "3.2581")
    again = await rates.put("KWD/USD", "3.2581")
    assert again.body == first.body
    (event,) = await published(books)
    assert (event.source_currency, event.target_currency, event.rate, event.version) == (
        "KWD", "USD", "3.2581", 1,
    )  # fmt: skip
    assert (await rates.listed())["KWD/USD"] == json.loads(first.body)


async def test_an_implausible_rate_is_refused_and_reported_and_nothing_is_stored(books: Books) -> None:
    rates = Api(books)
    await rates.put("KWD/USD", "3.00", timedelta(hours=1))
    before = await rates.listed()
    for rate, ago, reason in (
        ("3.61", timedelta(0), "jump"),
        ("30000", timedelta(0), "jump"),
        ("3.00", timedelta(days=8), "stale"),
        ("3.01", timedelta(hours=2), "older"),
    ):
        counted = refusals("api", reason)
        reply = await rates.put("KWD/USD", rate, ago)
        assert (reply.status, slug(reply)) == (409, "rate-refused")
        assert refusals("api", reason) == counted + 1
    assert await rates.listed() == before
    assert len(await published(books)) == 1
    confirmed = await rates.put("KWD/USD", "3.61", confirm=True)
    assert confirmed.status == 200
    assert (await rates.put("KWD/USD", "3.62")).status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"rate": "0"}, {"rate": "-1"}, {"rate": 3.2}, {"rate": "1e3"}, {"rate": "3.2581 "}, {"rate": "NaN"},
        {"rate": "1", "confirm": "yes"}, {"rate": "1", "reason": "x"}, {},
        {"rate": "1", "as_of": "2031-01-01T00:00:00Z"},
    ],
)  # fmt: skip
async def test_a_malformed_rate_is_refused(books: Books, body: dict[str, Any]) -> None:
    rates = Api(books)
    now = books.clock.now()
    future = {"as_of": rfc3339(now + timedelta(hours=1))} if "as_of" in body else {"as_of": rfc3339(now)}
    reply = await rates.send("PUT", "/v1/rates/KWD/USD", body | future)
    assert reply.status == 422
    assert await rates.listed() == {}


async def test_who_may_set_and_read_rates(books: Books) -> None:
    rates = Api(books)
    body = {"rate": "3", "as_of": rfc3339(books.clock.now())}
    assert (await rates.send("PUT", "/v1/rates/KWD/USD", body, ("drives", "ledger"))).status == 403
    assert (await rates.send("GET", "/v1/rates", None, ("pledges",))).status == 403
    assert (await rates.send("PUT", "/v1/rates/KWD/KWD", body)).status == 422
    assert (await rates.send("PUT", "/v1/rates/KWD/XQQ", body)).status == 404


def the_list(day: str, usd: str, kwd: str = "0.33") -> str:
    return (
        f"<x><Cube><Cube time='{day}'><Cube currency='USD' rate='{usd}'/>"
        f"<Cube currency='KWD' rate='{kwd}'/></Cube></Cube></x>"
    )


async def test_a_list_is_read_and_its_absurd_rates_are_refused_and_listed(
    books: Books, tmp_path: Path
) -> None:
    file, rates = tmp_path / "rates.xml", Api(books)
    reader = RateReader(books.database, books.clock, str(file), every_s=1)
    today = books.clock.now().date().isoformat()
    file.write_text(the_list(today, "1.10"))
    assert await reader.read() == {}
    async with books.database.reading() as session:
        found = await find_rates(session, [("KWD", "USD")], books.clock.now())
    assert found["KWD", "USD"].rate == "3.33333333333"
    file.write_text(the_list(today, "110", "0.34"))
    counted = refusals("ecb", "jump")
    for _ in range(3):
        assert await reader.read() == {"USD": "jump"}
    assert refusals("ecb", "jump") == counted + 1
    listed = await rates.listed()
    assert (listed["EUR/USD"]["rate"], listed["EUR/USD"]["refused"]["rate"]) == ("1.10", "110")
    assert (listed["EUR/KWD"]["rate"], listed["EUR/KWD"]["refused"]) == ("0.34", None)
    assert [event.rate for event in await published(books)] == ["0.33", "1.10", "0.34"]


async def test_a_stale_list_is_refused(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "rates.xml"
    reader = RateReader(books.database, books.clock, str(file), every_s=1)
    file.write_text(the_list((books.clock.now() - timedelta(days=9)).date().isoformat(), "1.10"))
    assert await reader.read() == {"USD": "stale", "KWD": "stale"}
    assert await published(books) == []
    listed = await Api(books).listed()
    assert (listed["EUR/USD"]["rate"], listed["EUR/USD"]["fresh"]) == (None, False)


async def test_of_an_unreadable_list_no_rate_is_taken(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "rates.xml"
    reader = RateReader(books.database, books.clock, str(file), every_s=1)
    file.write_text(the_list("2030-01-07", "1.10", "none"))
    with pytest.raises(UnreadableRates):
        await reader.read()
    assert await Api(books).listed() == {}


async def test_of_a_list_of_the_future_no_rate_is_taken(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "rates.xml"
    reader = RateReader(books.database, books.clock, str(file), every_s=1)
    file.write_text(the_list("2099-01-07", "1.10"))
    with pytest.raises(UnreadableRates, match="in the future: 2099-01-07"):
        await reader.read()
    assert await Api(books).listed() == {}


async def test_ages_and_missing_rates_of_open_drives_are_measured(books: Books) -> None:
    rates = Api(books)
    await books.consume(
        a_drive(currencies=["KWD", "AED"]),
        a_drive(slug="closed", state=DriveState.CLOSED, currencies=["SAR"]),
        a_drive(slug="plain"),
    )
    await rates.put("KWD/USD", "3.25", timedelta(hours=2))
    await RateReader(books.database, books.clock, "", every_s=1).measure()
    assert REGISTRY.get_sample_value("ataa_exchange_rates_missing") == 1
    assert REGISTRY.get_sample_value("ataa_exchange_rate_age_seconds") == pytest.approx(7200, abs=1)
    books.clock.move(timedelta(days=7).total_seconds())
    await RateReader(books.database, books.clock, "", every_s=1).measure()
    assert REGISTRY.get_sample_value("ataa_exchange_rates_missing") == 2
