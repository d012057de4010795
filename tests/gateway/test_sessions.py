"""Browser sessions, on both stores: theft, CSRF, fixation, expiry, revocation, logout."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from backbone.clock import FrozenClock
from backbone.database.database import Database
from backbone.http.problems import Forbidden, Overloaded, TooManyRequests, Unauthorized
from gateway.access.keys import KeyRing, new_row
from gateway.access.limits import RateLimit
from gateway.access.same_origin import CrossOrigin
from gateway.access.session_memory import KEPT
from gateway.access.sessions import IDLE, LIFE, CsrfTokenWrong, NoSession, Opened, Sessions
from gateway.app import MIGRATIONS
from gateway.http.asgi import Header, Request
from gateway.tables import KEYS, MESSAGING_TABLES, SESSIONS
from tests.engines import fresh_postgres
from tests.gateway.failing_database import FailingDatabase

ADMIN = "ak_admin_" + "a" * 30
SECRET_KEY = "sk_live_" + "s" * 32
OWN = {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000"}


def request(headers: Mapping[str, str] = OWN, *, address: str = "127.0.0.1", scheme: str = "http") -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": "POST", "path": "/session", "query_string": b"", "headers": pairs,
        "client": (address, 1), "scheme": scheme,
    }  # fmt: skip
    return Request(scope, receive)


def with_cookie(cookie: str, headers: Mapping[str, str] = OWN, **more: str) -> Request:
    return request({**headers, "cookie": cookie}, **more)


def pair(headers: list[Header] | Opened) -> str:
    """The cookie as the browser sends it back."""
    ((_, text),) = headers.cookie if isinstance(headers, Opened) else headers
    return text.decode().partition(";")[0]


@dataclass
class Replica:
    """One gateway's key ring and sessions."""

    ring: KeyRing
    sessions: Sessions


@dataclass
class Installation:
    """Two replicas of the gateway with one database."""

    database: Database
    clock: FrozenClock
    one: Replica
    two: Replica

    def replica(self, admin: str = ADMIN, public_url: str = "") -> Replica:
        ring = KeyRing(self.database, "s", admin, self.clock)
        logins = RateLimit("login", 1 / 6, 60.0, lambda: self.clock.now().timestamp())
        return Replica(ring, Sessions(self.database, ring, "s", public_url, logins, self.clock))

    async def add_key(self, key: str = SECRET_KEY, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "kind": "secret", "mode": "live", "partner": "abo", "scopes": ["drives"], "origins": [],
            "name": None, "expires_at": None, "made_at": self.clock.now(),
        }  # fmt: skip
        async with self.database.transaction() as session:
            await session.execute(insert(KEYS), new_row(key, **{**fields, **changes}).model_dump())
        await self.one.ring.refresh()
        await self.two.ring.refresh()


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'gateway.db'}"
    else:
        async with fresh_postgres() as fresh:
            yield fresh


@pytest.fixture
async def installation(url: str) -> AsyncIterator[Installation]:
    database = Database(url, MESSAGING_TABLES, synchronous="OFF")
    await database.migrate(MIGRATIONS)
    found = Installation(database, FrozenClock(), None, None)
    found.one, found.two = found.replica(), found.replica()
    yield found
    await database.close()


async def test_login_is_known_to_every_replica_with_the_rights_of_its_key(installation: Installation) -> None:
    await installation.add_key()
    cookie = pair(await installation.one.sessions.login(request(), f" {SECRET_KEY}\n", "drives"))
    session = await installation.two.sessions.find(with_cookie(cookie))
    assert (session.bearer.partner, session.bearer.kind) == ("abo", "secret")
    with pytest.raises(Forbidden):
        session.bearer.require("moderation")
    assert session.bearer.signed["ataa-caller"]


async def test_only_hashes_are_stored(installation: Installation) -> None:
    token = pair(await installation.one.sessions.login(request(), ADMIN, "drives")).partition("=")[2]
    async with installation.database.reading() as session:
        (row,) = await session.execute(select(SESSIONS))
    stored = " ".join(map(str, row))
    assert token not in stored
    assert ADMIN not in stored


async def test_cookie_is_closed_to_scripts_and_other_sites(installation: Installation) -> None:
    ((_, text),) = (await installation.one.sessions.login(request(), ADMIN, "drives")).cookie
    ((name, cookie),) = SimpleCookie(text.decode()).items()
    assert name == "ataa-session"
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert cookie["max-age"] == str(int(LIFE.total_seconds()))
    assert not cookie["domain"]
    assert not cookie["secure"]


async def test_cookie_has_the_host_prefix_under_https(installation: Installation) -> None:
    behind_proxy = {"host": "give.example", "origin": "https://give.example"}
    for replica, https in (
        (installation.one, request(behind_proxy, scheme="https")),
        (installation.replica(public_url="https://give.example"), request(behind_proxy)),
    ):
        headers = (await replica.sessions.login(https, ADMIN, "drives")).cookie
        assert headers[0][1].startswith(b"__Host-ataa-session=")
        assert headers[0][1].endswith(b"; Secure")
        plain = pair(headers).removeprefix("__Host-")
        with pytest.raises(NoSession):  # a cookie planted over http has no prefix
            await replica.sessions.find(with_cookie(plain, behind_proxy, scheme="https"))


@pytest.mark.parametrize("key", ["", "x", "ak_admin_" + "b" * 30, ADMIN[:-1], "ключ\x00", "a" * 300])
async def test_wrong_key_opens_nothing(installation: Installation, key: str) -> None:
    with pytest.raises(Unauthorized):
        await installation.one.sessions.login(request(), key, "drives")


async def test_publishable_key_and_missing_scope_open_nothing(installation: Installation) -> None:
    public = "pk_live_" + "p" * 32
    await installation.add_key(public, kind="publishable", scopes=["pledges"], origins=["https://a.example"])
    await installation.add_key()
    for key, scope in ((public, "pledges"), (SECRET_KEY, "moderation")):
        with pytest.raises(Forbidden):
            await installation.one.sessions.login(request(), key, scope)


async def test_wrong_keys_of_an_address_are_limited(installation: Installation) -> None:
    for _ in range(10):
        with pytest.raises(Unauthorized):
            await installation.one.sessions.login(request(address="192.0.2.1"), "x", "drives")
    with pytest.raises(TooManyRequests):
        await installation.one.sessions.login(request(address="192.0.2.1"), "x", "drives")
    # A stranger behind the same address locks nobody out; keys are too long to be guessed.
    assert await installation.one.sessions.login(request(address="192.0.2.1"), ADMIN, "drives")


FOREIGN = [
    {"host": "127.0.0.1:8000"},
    {"host": "127.0.0.1:8000", "origin": "null"},
    {"host": "127.0.0.1:8000", "origin": "https://evil.example"},
    {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"},
    {"host": "127.0.0.1:8000", "sec-fetch-site": "cross-site"},
    {"host": "127.0.0.1:8000", "sec-fetch-site": "same-site"},
    {"host": "127.0.0.1:8000", "sec-fetch-site": "none"},
    {**OWN, "sec-fetch-site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_other_sites_can_neither_log_a_browser_in_nor_use_its_session(
    installation: Installation, headers: dict[str, str]
) -> None:
    with pytest.raises(CrossOrigin):
        await installation.one.sessions.login(request(headers), ADMIN, "drives")
    cookie = pair(await installation.one.sessions.login(request(), ADMIN, "drives"))
    session = await installation.one.sessions.find(with_cookie(cookie))
    with pytest.raises(CrossOrigin):
        installation.one.sessions.check_csrf(with_cookie(cookie, headers), session, session.csrf)


async def test_a_forms_token_is_that_of_its_session(installation: Installation) -> None:
    sessions = installation.one.sessions
    mine = await sessions.find(with_cookie(pair(await sessions.login(request(), ADMIN, "drives"))))
    other = await sessions.find(with_cookie(pair(await sessions.login(request(), ADMIN, "drives"))))
    sessions.check_csrf(request(), mine, mine.csrf)
    sessions.check_csrf(request({"host": "x", "sec-fetch-site": "same-origin"}), mine, mine.csrf)
    for wrong in ("", "ü\ud800", other.csrf, mine.csrf[:-1], mine.csrf.upper()):
        with pytest.raises(CsrfTokenWrong):
            sessions.check_csrf(request(), mine, wrong)


async def test_login_replaces_a_planted_session(installation: Installation) -> None:
    """The attacker's own session is in the victim's browser before the victim logs in."""
    sessions = installation.one.sessions
    planted = pair(await sessions.login(request(), ADMIN, "drives"))
    after = pair(await sessions.login(with_cookie(planted), ADMIN, "drives"))
    assert after != planted
    with pytest.raises(NoSession):
        await installation.two.sessions.find(with_cookie(planted))


async def test_an_invented_token_is_not_adopted(installation: Installation) -> None:
    invented = "ataa-session=" + "A" * 43
    with pytest.raises(NoSession):
        await installation.one.sessions.find(with_cookie(invented))
    assert pair(await installation.one.sessions.login(with_cookie(invented), ADMIN, "drives")) != invented


@pytest.mark.parametrize(
    "cookie", ["", "ataa-session", "ataa-session=", "ataa-session=' OR 1=1 --", "x=y; =; ataa-session=é" * 50]
)
async def test_malformed_cookie_is_no_session(installation: Installation, cookie: str) -> None:
    with pytest.raises(NoSession):
        await installation.one.sessions.find(with_cookie(cookie))


async def test_session_ends_after_its_life_however_much_it_is_used(installation: Installation) -> None:
    cookie = with_cookie(pair(await installation.one.sessions.login(request(), ADMIN, "drives")))
    for _ in range(11):
        installation.clock.move(3600)
        await installation.one.sessions.find(cookie)
    installation.clock.move(3600)
    with pytest.raises(NoSession):
        await installation.one.sessions.find(cookie)


async def test_unused_session_ends(installation: Installation) -> None:
    cookie = with_cookie(pair(await installation.one.sessions.login(request(), ADMIN, "drives")))
    installation.clock.move((IDLE - timedelta(seconds=1)).total_seconds())
    await installation.one.sessions.find(cookie)
    installation.clock.move((IDLE - timedelta(seconds=1)).total_seconds())
    await installation.one.sessions.find(cookie)
    installation.clock.move(IDLE.total_seconds())
    with pytest.raises(NoSession):
        await installation.one.sessions.find(cookie)


async def test_logout_ends_the_session_everywhere(installation: Installation) -> None:
    cookie = with_cookie(pair(await installation.one.sessions.login(request(), ADMIN, "drives")))
    cleared = await installation.one.sessions.logout(cookie)
    assert b"Max-Age=0" in cleared[0][1]
    with pytest.raises(NoSession):  # a stolen copy of the cookie, at the other replica
        await installation.two.sessions.find(cookie)
    assert await installation.one.sessions.logout(request())


async def test_session_ends_with_its_key_in_every_replica(installation: Installation) -> None:
    await installation.add_key()
    cookie = with_cookie(pair(await installation.one.sessions.login(request(), SECRET_KEY, "drives")))
    async with installation.database.transaction() as session:
        await session.execute(update(KEYS).values(revoked_at=installation.clock.now()))
    await installation.two.ring.refresh()  # as every process does each second
    with pytest.raises(NoSession):
        await installation.two.sessions.find(cookie)


async def test_session_ends_when_its_key_expires(installation: Installation) -> None:
    await installation.add_key(expires_at=installation.clock.now() + timedelta(minutes=5))
    cookie = with_cookie(pair(await installation.one.sessions.login(request(), SECRET_KEY, "drives")))
    installation.clock.move(301)
    with pytest.raises(NoSession):
        await installation.one.sessions.find(cookie)


async def test_new_admin_key_ends_the_sessions_of_the_old_one(installation: Installation) -> None:
    cookie = with_cookie(pair(await installation.one.sessions.login(request(), ADMIN, "drives")))
    restarted = installation.replica(admin="ak_admin_" + "n" * 30)
    with pytest.raises(NoSession):
        await restarted.sessions.find(cookie)


async def test_ended_sessions_are_pruned(installation: Installation) -> None:
    for _ in range(3):
        await installation.one.sessions.login(request(), ADMIN, "drives")
    assert await installation.one.sessions.delete_expired() == 0
    installation.clock.move(LIFE.total_seconds() + 1)
    cookie = with_cookie(pair(await installation.one.sessions.login(request(), ADMIN, "drives")))
    assert await installation.one.sessions.delete_expired(2) == 2
    assert await installation.one.sessions.delete_expired() == 1
    assert await installation.one.sessions.find(cookie)


async def test_unavailable_database_is_reported_as_such(tmp_path: Path) -> None:
    database = Database("postgresql://ataa@127.0.0.1:1/none", MESSAGING_TABLES)
    clock = FrozenClock()
    ring = KeyRing(database, "s", ADMIN, clock)
    sessions = Sessions(database, ring, "s", "", RateLimit("login", 1, 1, lambda: 0.0), clock)
    with pytest.raises(Overloaded):
        await sessions.login(request(), ADMIN, "drives")
    with pytest.raises(Overloaded):
        await sessions.find(with_cookie("ataa-session=" + "A" * 43))
    await database.close()


async def test_remembered_session_is_valid_while_the_database_does_not_answer(url: str) -> None:
    database, clock = FailingDatabase(url, MESSAGING_TABLES, synchronous="OFF"), FrozenClock()
    await database.migrate(MIGRATIONS)
    installation = Installation(database, clock, None, None)
    replica, other = installation.replica(), installation.replica()
    cookie = with_cookie(pair(await replica.sessions.login(request(), ADMIN, "drives")))
    database.down = True
    with pytest.raises(Overloaded):  # this process did not find it before
        await replica.sessions.find(cookie, despite_outage=True)
    database.down = False
    csrf = (await replica.sessions.find(cookie, despite_outage=True)).csrf
    database.down = True
    clock.move(90)  # so that the session's use is due to be stored
    for _ in range(3):
        assert (await replica.sessions.find(cookie, despite_outage=True)).csrf == csrf
    assert database.refused == 2  # the database was not waited for each time
    for sessions in (replica.sessions, other.sessions):
        with pytest.raises(Overloaded):
            await sessions.find(cookie)
    with pytest.raises(Overloaded):
        await other.sessions.find(cookie, despite_outage=True)
    clock.move(KEPT.total_seconds())
    with pytest.raises(Overloaded):
        await replica.sessions.find(cookie, despite_outage=True)
    database.down = False
    assert (await replica.sessions.find(cookie, despite_outage=True)).csrf == csrf
    await database.close()


async def test_remembered_session_ends_with_its_key_its_life_and_its_logout(url: str) -> None:
    database, clock = FailingDatabase(url, MESSAGING_TABLES, synchronous="OFF"), FrozenClock()
    await database.migrate(MIGRATIONS)
    installation = Installation(database, clock, None, None)
    installation.one = installation.two = replica = installation.replica()
    sessions = replica.sessions
    await installation.add_key()
    of_key = with_cookie(pair(await sessions.login(request(), SECRET_KEY, "drives")))
    logged_out = with_cookie(pair(await sessions.login(request(), ADMIN, "drives")))
    for cookie in (of_key, logged_out):
        await sessions.find(cookie, despite_outage=True)
    await sessions.logout(logged_out)
    async with database.transaction() as session:
        await session.execute(update(KEYS).values(revoked_at=clock.now()))
    await replica.ring.refresh()
    database.down = True
    with pytest.raises(NoSession):
        await sessions.find(of_key, despite_outage=True)
    with pytest.raises(Overloaded):
        await sessions.find(logged_out, despite_outage=True)
    database.down = False
    with pytest.raises(NoSession):
        await sessions.find(logged_out, despite_outage=True)
    await database.close()
