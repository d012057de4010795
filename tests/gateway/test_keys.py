from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydantic import SecretStr, ValidationError
from sqlalchemy import create_engine

from backbone.clock import FrozenClock, rfc3339
from backbone.settings import load
from gateway.access.keys import REFRESH_S
from gateway.settings import GatewaySettings
from gateway.tables import Table
from tests.gateway.harness import ADMIN, SECRET, Harness, bearer, gateway
from tests.waiting import until

PUBLISHABLE = {"kind": "publishable", "origins": ["https://give.example"]}
KEY_REQUEST = {"amount": {"currency": "USD", "value": "25.00"}}


async def status_with(harness: Harness, key: str) -> int:
    return (await harness.get("/v1/drives/winter", **bearer(key)))[0]


async def test_key_is_returned_once_and_only_its_hash_is_stored(harness: Harness, tmp_path: Path) -> None:
    status, _, made = await harness.post(
        "/v1/keys", {"kind": "secret", "scopes": ["drives"]}, **bearer(ADMIN)
    )
    assert status == 201
    assert made["key"].startswith("sk_live_")
    assert made["id"].startswith("key_")
    _, _, listed = await harness.get("/v1/keys", **bearer(ADMIN))
    assert [key["id"] for key in listed["data"]] == [made["id"]]
    assert "key" not in listed["data"][0]
    await harness.service.close()
    stored = b"".join(file.read_bytes() for file in tmp_path.glob("gateway.db*"))  # noqa: ASYNC240
    assert made["key"].encode() not in stored
    assert made["id"].encode() in stored


async def test_repeated_idempotency_key_returns_the_same_key_without_its_secret(harness: Harness) -> None:
    once = {**bearer(ADMIN), "Idempotency-Key": "first"}
    _, _, made = await harness.post("/v1/keys", {"kind": "secret"}, **once)
    status, headers, again = await harness.post("/v1/keys", {"kind": "secret"}, **once)
    assert (status, headers["Idempotency-Replayed"]) == (201, "true")
    assert again == {**made, "key": None}
    other, _, problem = await harness.post("/v1/keys", {"kind": "secret", "mode": "test"}, **once)
    assert (other, problem["type"]) == (422, "/problems/idempotency-key-reused")
    _, _, listed = await harness.get("/v1/keys", **bearer(ADMIN))
    assert len(listed["data"]) == 1


async def test_a_body_that_is_not_utf_8_is_malformed_json(harness: Harness) -> None:
    headers = {**bearer(ADMIN), "Content-Type": "application/json"}
    async with harness.session.post("/v1/keys", data=b'{"kind": "\xff"}', headers=headers) as reply:
        assert reply.status == 400
        assert (await reply.json())["type"] == "/problems/malformed-json"


async def test_keys_are_listed_in_pages(harness: Harness) -> None:
    made = [await harness.key(kind="secret", name=str(n)) for n in range(3)]
    _, _, first = await harness.get("/v1/keys?limit=2", **bearer(ADMIN))
    _, _, rest = await harness.get(f"/v1/keys?limit=2&after={first['next']}", **bearer(ADMIN))
    assert [key["name"] for key in [*first["data"], *rest["data"]]] == ["0", "1", "2"]
    assert rest["next"] is None
    assert len(set(made)) == 3
    assert (await harness.get("/v1/keys?after=%00", **bearer(ADMIN)))[0] == 422  # PostgreSQL cannot store NUL


async def test_revoked_key_is_refused_immediately_here_and_within_two_seconds_elsewhere(
    harness: Harness, tmp_path: Path
) -> None:
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    async with gateway(other_folder, database_url_gateway=url) as other:
        _, _, made = await harness.post("/v1/keys", {"kind": "secret", "scopes": ["drives"]}, **bearer(ADMIN))

        async def known_there() -> bool:
            return await status_with(other, made["key"]) == 200

        async def refused_there() -> bool:
            return await status_with(other, made["key"]) == 401

        await until(known_there)
        async with harness.session.delete(f"/v1/keys/{made['id']}", headers=bearer(ADMIN)) as reply:
            assert reply.status == 204
            assert "Content-Type" not in reply.headers
        assert await status_with(harness, made["key"]) == 401
        await until(refused_there)
    assert REFRESH_S <= 1.0  # other processes refuse the key within two seconds
    async with harness.session.delete(f"/v1/keys/{made['id']}", headers=bearer(ADMIN)) as again:
        assert again.status == 204
    _, _, listed = await harness.get("/v1/keys", **bearer(ADMIN))
    assert listed["data"][0]["revoked_at"] is not None


async def test_revoking_an_unknown_key_is_404(harness: Harness) -> None:
    for unknown in ("key_" + "0" * 26, "nothing"):
        async with harness.session.delete(f"/v1/keys/{unknown}", headers=bearer(ADMIN)) as reply:
            assert reply.status == 404


async def test_expired_key_is_refused(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        soon = rfc3339(clock.now() + timedelta(minutes=5))
        key = await harness.key(kind="secret", scopes=["drives"], expires_at=soon)
        assert await status_with(harness, key) == 200
        clock.move(301)
        assert await status_with(harness, key) == 401


async def test_keys_survive_a_restart(tmp_path: Path) -> None:
    async with gateway(tmp_path) as harness:
        key = await harness.key(kind="secret", scopes=["drives"])
    async with gateway(tmp_path) as harness:
        assert await status_with(harness, key) == 200


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "Bearer ak_admin_wrong",
        f"Token {ADMIN}",
        "Bearer ключ".encode().decode("latin-1"),
    ],
)
async def test_missing_or_unknown_key_is_401(harness: Harness, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    status, answered, problem = await harness.get("/v1/drives/winter", **headers)
    assert (status, problem["type"]) == (401, "/problems/unauthorized")
    assert answered["WWW-Authenticate"].startswith("Bearer")
    assert harness.pledges.lines() == [
        "POST /internal/drives"
    ]  # requested by the harness while it waited for the totals


@pytest.mark.parametrize(
    ("scopes", "method", "path"),
    [
        (["pledges"], "POST", "/v1/drives"),
        (["pledges"], "GET", "/v1/drives/winter"),
        (["pledges"], "POST", "/v1/drives/winter/close"),
        (["drives"], "POST", "/v1/drives/winter/pledges"),
        (["drives", "pledges"], "POST", "/v1/pledges/plg_1/refunds"),
        (
            ["drives", "pledges", "refunds", "offline", "ledger", "moderation", "webhooks", "export"],
            "POST",
            "/v1/keys",
        ),
        (["drives"], "GET", "/v1/keys"),
        (["drives"], "DELETE", "/v1/keys/key_1"),
    ],
)
async def test_missing_scope_is_403(harness: Harness, scopes: list[str], method: str, path: str) -> None:
    key = await harness.key(kind="secret", scopes=scopes)
    async with harness.session.request(
        method,
        path,
        json=KEY_REQUEST if method == "POST" else None,
        headers={**bearer(key), "Idempotency-Key": "k"},
    ) as reply:
        problem = await reply.json(content_type=None)
        assert (reply.status, problem["type"]) == (403, "/problems/forbidden")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://give.example", 201),
        (None, 403),
        ("null", 403),
        ("http://give.example", 403),
        ("https://give.example:8443", 403),
        ("https://give.example.evil.example", 403),
        ("https://evil.example", 403),
        ("https://give.example/", 403),
    ],
)
async def test_publishable_key_is_accepted_from_its_origins_only(
    harness: Harness, origin: str | None, status: int
) -> None:
    key = await harness.key(**PUBLISHABLE)
    headers = {**bearer(key), "Idempotency-Key": "k"} | ({"Origin": origin} if origin else {})
    answered, _, body = await harness.post("/v1/drives/winter/pledges", KEY_REQUEST, **headers)
    assert answered == status
    if status == 403:
        assert body["type"] == "/problems/origin-not-allowed"


async def test_publishable_key_may_only_read_and_make_pledges(harness: Harness) -> None:
    key = await harness.key(**PUBLISHABLE)
    here = {**bearer(key), "Origin": "https://give.example", "Idempotency-Key": "k"}
    assert (await harness.get("/v1/drives/winter", **here))[0] == 200
    for path in ("/v1/drives", "/v1/drives/winter/open", "/v1/pledges/plg_1/refunds", "/v1/keys"):
        status, _, problem = await harness.post(path, KEY_REQUEST, **here)
        assert (status, problem["type"]) == (403, "/problems/forbidden"), path
    assert (await harness.get("/v1/keys", **here))[0] == 403


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "admin"},
        {"kind": "secret", "scopes": ["everything"]},
        {"kind": "secret", "scopes": ["admin"]},
        {"kind": "secret", "origins": ["https://give.example"]},
        {"kind": "publishable"},
        {"kind": "publishable", "origins": ["https://give.example"], "scopes": ["drives"]},
        {"kind": "publishable", "origins": ["give.example"]},
        {"kind": "publishable", "origins": ["https://give.example/path"]},
        {"kind": "publishable", "origins": ["https://*.example"]},
        {"kind": "publishable", "origins": ["https://me@give.example"]},
        {"kind": "publishable", "origins": ["https://give.example:99999"]},
        {"kind": "secret", "mode": "sandbox"},
        {"kind": "secret", "partner": "Not A Partner"},
        {"kind": "secret", "expires_at": "tomorrow"},
        {"kind": "secret", "expires_at": "2030-01-01T00:00:00"},
        {"kind": "secret", "expires_at": "9999-12-31T23:59:59-05:00"},
        {"kind": "secret", "expires_at": 1_900_000_000},
        {"kind": "secret", "name": "\x00"},
        {"kind": "secret", "name": "\ud800"},
        {"kind": "secret", "unknown": 1},
        [],
        "secret",
    ],
)
async def test_invalid_key_request_is_422_and_creates_no_key(harness: Harness, body: Any) -> None:
    status, _, problem = await harness.post("/v1/keys", body, **bearer(ADMIN))
    assert status == 422
    assert problem["errors"]
    assert (await harness.get("/v1/keys", **bearer(ADMIN)))[2]["data"] == []


async def test_origins_are_stored_in_the_form_browsers_send(harness: Harness) -> None:
    request = {"kind": "publishable", "origins": ["HTTPS://Give.Example:443/", "http://localhost:3000"]}
    _, _, made = await harness.post("/v1/keys", request, **bearer(ADMIN))
    assert made["origins"] == ["http://localhost:3000", "https://give.example"]


@pytest.mark.parametrize(
    "key", ["secret", "ak_admin_", "ak_admin_short", "ak_admin_" + "é" * 20, "ak_admin_" + "-" * 20]
)
def test_invalid_admin_key_stops_startup_with_one_line(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATAA_ADMIN_KEY", key)
    with pytest.raises(SystemExit):
        load(GatewaySettings)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "ATAA_ADMIN_KEY" in line
    assert key not in line.removeprefix("ataa: ATAA_ADMIN_KEY: must be ak_admin_")


@pytest.mark.parametrize("url", ["give.example", "ftp://give.example", "https://give.example/door"])
def test_invalid_public_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        GatewaySettings(public_url=url)


async def test_cached_keys_work_while_the_database_is_unavailable(harness: Harness) -> None:
    key = await harness.key(kind="secret", scopes=["drives"])
    ring = next(one.run.__self__ for one in harness.service.workers if one.name == "gateway.keys")  # type: ignore[attr-defined]
    await harness.service.close()

    class UnavailableDatabase:
        asked = 0

        def reading(self) -> Any:
            self.asked += 1
            raise OSError("unavailable")

    ring._database = unavailable = UnavailableDatabase()
    await until(lambda: unavailable.asked >= 2)  # a refresh has failed and another one followed
    assert await status_with(harness, key) == 200


def test_migrations_produce_the_declared_schema(tmp_path: Path) -> None:
    import asyncio

    from backbone.database.database import Database
    from gateway.app import MIGRATIONS
    from gateway.tables import MESSAGING_TABLES

    async def migrate() -> None:
        database = Database(f"sqlite:///{tmp_path / 'gateway.db'}", MESSAGING_TABLES)
        await database.migrate(MIGRATIONS)
        await database.migrate(MIGRATIONS)
        await database.close()

    asyncio.run(migrate())
    with create_engine(f"sqlite:///{tmp_path / 'gateway.db'}").connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


def test_internal_secret_is_hidden_in_the_settings() -> None:
    assert SECRET not in repr(GatewaySettings(internal_secret=SecretStr(SECRET)))
