"""The routes of matching pools: who may use them, what they refuse, and what they announce."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from backbone import ids
from backbone.clock import rfc3339
from backbone.contracts import DriveChanged, MatchingPoolChanged, decode
from backbone.http.caller import Mode, sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.service import new_app
from services.payments.creator_lookup import CreatorLookup
from services.payments.drive_lookup import DriveLookup
from services.payments.matching.api import routes
from services.payments.matching.commands import MOST_POOLS, MatchingPools
from services.payments.tables import MESSAGING_TABLES
from tests.payments.books import Books
from tests.payments.harness import SECRET, Pledges, a_drive

ACME = {"sponsor": "Acme", "cap": {"currency": "USD", "value": "5000.00"}, "ratio": "1.00"}


@dataclass
class Api:
    """The routes over `books`, and the drive of the partner `charity`."""

    books: Books
    app: FastAPI
    pledges: Pledges
    drive: DriveChanged

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: str = "",
        partner: str = "charity",
        scopes: tuple[str, ...] = ("drives",),
        mode: Mode = "live",
        **headers: str,
    ) -> ServiceResponse:
        caller = sign_caller(SECRET, partner=partner, scopes=scopes, mode=mode, key_id="key_a")
        raw = b"" if body is None else body if isinstance(body, bytes) else _json(body)
        sent = {"content-type": "application/json", **caller, **headers}
        return await InProcessServiceClient(self.app).request(
            method, path, headers=sent, body=raw, query=query
        )

    async def make(self, body: Any = ACME, drive: str = "winter", **other: Any) -> ServiceResponse:
        return await self.ask("POST", f"/v1/drives/{drive}/matching-pools", body, **other)

    async def pools(self) -> list[dict[str, Any]]:
        found = await self.ask("GET", "/v1/drives/winter/matching-pools", query="limit=100")
        pools: list[dict[str, Any]] = found.json()["data"]
        return pools

    async def announced(self) -> list[MatchingPoolChanged]:
        outbox = MESSAGING_TABLES.outbox
        async with self.books.database.reading() as session:
            rows = (await session.execute(select(outbox).order_by(outbox.c.number))).all()
        events = [decode(row.name, row.value) for row in rows]
        return [event for event in events if isinstance(event, MatchingPoolChanged)]


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


@pytest.fixture
async def api(books: Books) -> Api:
    pledges = Pledges()
    client = InProcessServiceClient(pledges.app)
    app = new_app("payments", SECRET)
    drives = DriveLookup(books.database, client, SECRET)
    app.include_router(
        routes(MatchingPools(books.database, drives, CreatorLookup(client, SECRET), books.clock))
    )
    drive = a_drive(partner="charity")
    await books.consume(drive)
    return Api(books, app, pledges, drive)


async def test_pool_is_made_listed_and_announced(api: Api) -> None:
    reply = await api.make()
    assert reply.status == 201
    now = rfc3339(api.books.clock.now())
    pool = reply.json()
    assert pool == {
        "id": pool["id"], "drive": api.drive.drive_id, "sponsor": "Acme", "cap": ACME["cap"],
        "used": {"currency": "USD", "value": "0.00"}, "remaining": ACME["cap"], "ratio": "1.00",
        "per_gift_cap": None, "creator": None, "state": "active", "starts_at": now, "ends_at": None,
        "ended_at": None, "created_at": now,
    }  # fmt: skip
    assert ids.is_id(pool["id"], "mch")
    assert await api.pools() == [pool]
    (event,) = await api.announced()
    assert (event.pool_id, event.version, event.used.minor_units) == (pool["id"], 1, 0)


async def test_all_fields_of_a_pool(api: Api) -> None:
    api.pledges.creators[f"{api.drive.drive_id}/abo"] = "crt_1"
    start, end = (api.books.clock.now() + timedelta(days=n) for n in (1, 2))
    body = ACME | {
        "per_gift_cap": {"currency": "USD", "value": "50.00"}, "creator": "abo", "ratio": "0.5",
        "starts_at": rfc3339(start), "ends_at": rfc3339(end),
    }  # fmt: skip
    assert (await api.make(body)).status == 422
    pool = (await api.make(body | {"ratio": "0.500"})).json()
    assert (pool["state"], pool["creator"], pool["ratio"]) == ("scheduled", "crt_1", "0.50")
    assert pool["per_gift_cap"] == body["per_gift_cap"]
    assert (pool["starts_at"], pool["ends_at"]) == (body["starts_at"], body["ends_at"])


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"ratio": "0.00"}, "/ratio"),
        ({"ratio": "100.01"}, "/ratio"),
        ({"ratio": 1.0}, "/ratio"),
        ({"cap": {"currency": "EUR", "value": "5.00"}}, "/cap/currency"),
        ({"cap": {"currency": "USD", "value": "0.00"}}, "/cap"),
        ({"cap": {"currency": "USD", "value": "9" * 40 + ".00"}}, "/cap"),
        ({"per_gift_cap": {"currency": "EUR", "value": "5.00"}}, "/per_gift_cap/currency"),
        ({"sponsor": "\u2003"}, "/sponsor"),
        ({"sponsor": "a\x00b"}, "/sponsor"),
        ({"sponsor": "\ud800"}, "/sponsor"),
        ({"sponsor": "x" * 101}, "/sponsor"),
        ({"creator": "nobody"}, "/creator"),
        ({"creator": "a b"}, "/creator"),
        ({"ends_at": "2022-01-07T12:00:00Z"}, "/ends_at"),
        ({"starts_at": "2031-01-01T00:00:00Z", "ends_at": "2030-01-01T00:00:00Z"}, "/ends_at"),
        ({"starts_at": "tomorrow"}, "/starts_at"),
        ({"used": {"currency": "USD", "value": "5.00"}}, "/used"),
    ],
)
async def test_bad_pool_is_refused_and_stores_nothing(api: Api, change: Any, pointer: str) -> None:
    reply = await api.make(ACME | change)
    assert reply.status == 422, reply.body
    assert [error["pointer"] for error in reply.json()["errors"]] == [pointer]
    assert await api.pools() == []
    assert await api.announced() == []


@pytest.mark.parametrize(
    ("caller", "status"),
    [
        ({"partner": "neighbour"}, 403),
        ({"scopes": ("refunds",)}, 403),
        ({"mode": "test"}, 403),
        ({"partner": "ataa", "scopes": ("admin",)}, 201),
    ],
)
async def test_pools_are_for_the_owner_and_admins(api: Api, caller: Any, status: int) -> None:
    assert (await api.make(**caller)).status == status
    listed = await api.ask("GET", "/v1/drives/winter/matching-pools", **caller)
    pool = (await api.make()).json()["id"]
    ended = await api.ask("POST", f"/v1/matching-pools/{pool}/end", **caller)
    expected = 200 if status == 201 else status
    assert (listed.status, ended.status) == (expected, expected)


async def test_unknown_drives_and_pools_are_not_found(api: Api) -> None:
    for path in ("/v1/drives/summer/matching-pools", "/v1/drives/A%00/matching-pools"):
        assert (await api.ask("GET", path)).status == 404
        assert (await api.ask("POST", path, ACME)).status == 404
    for pool in (ids.new("mch"), ids.new("plg"), "x", "mch_\x00"):
        assert (await api.ask("POST", f"/v1/matching-pools/{pool}/end")).status == 404


async def test_repeated_key_makes_one_pool_and_another_body_is_refused(api: Api) -> None:
    first = await api.make(**{"idempotency-key": "k"})
    again = await api.make(drive=api.drive.drive_id, **{"idempotency-key": "k"})
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    assert (await api.make(ACME | {"ratio": "2.00"}, **{"idempotency-key": "k"})).status == 422
    assert len(await api.pools()) == 1


async def test_pool_is_ended_once(api: Api) -> None:
    pool = (await api.make()).json()["id"]
    ended = await api.ask("POST", f"/v1/matching-pools/{pool}/end")
    assert (ended.status, ended.json()["state"]) == (200, "ended")
    api.books.clock.move(60)
    again = await api.ask("POST", f"/v1/matching-pools/{pool}/end")
    assert again.json() == ended.json()
    assert [event.version for event in await api.announced()] == [1, 2]


async def test_pools_of_a_drive_are_limited_and_paged(api: Api) -> None:
    made = [(await api.make()).json()["id"] for _ in range(MOST_POOLS)]
    reply = await api.make()
    assert (reply.status, reply.json()["type"]) == (409, "/problems/too-many-matching-pools")
    found, after = [], ""
    while True:
        page = (await api.ask("GET", "/v1/drives/winter/matching-pools", query=f"limit=20{after}")).json()
        found += [pool["id"] for pool in page["data"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == made
    bad = await api.ask("GET", "/v1/drives/winter/matching-pools", query="after=mch")
    assert bad.status == 422
