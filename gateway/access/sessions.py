"""Browser sessions of the console and the moderation page (docs/decisions/0026).

A login exchanges an API key for a cookie with a random token. The database holds the SHA-256 of the token and
of the key. Each request looks both up: a session ends in every process at its logout, and within two seconds
once its key is revoked or expired. The cookie is HttpOnly and SameSite=Strict. A POST needs, besides it, the
session's CSRF token and an `Origin` or `Sec-Fetch-Site` of the gateway itself.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import bindparam, delete, insert, select, update

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.database.transient import transient_failure
from backbone.http.problems import Forbidden, Overloaded, Unauthorized
from backbone.periodic import BATCH, delete_oldest
from gateway.access.keys import Bearer, KeyRing, fingerprint
from gateway.access.limits import RateLimit, is_loopback
from gateway.access.same_origin import CrossOrigin, is_https, require_same_origin
from gateway.access.session_memory import SessionMemory
from gateway.http.asgi import Header, Request
from gateway.tables import SESSIONS, SessionRow

LIFE: Final = timedelta(hours=12)
"""After the login a session ends, used or not."""
IDLE: Final = timedelta(hours=2)
"""Without a request a session ends. The polls of an open moderation page are requests."""
_SEEN_EVERY: Final = timedelta(minutes=1)

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_FIND: Final = select(SESSIONS).where(SESSIONS.c.sha256 == bindparam("found"))
_SEE: Final = update(SESSIONS).where(SESSIONS.c.sha256 == bindparam("found"))
_END: Final = delete(SESSIONS).where(SESSIONS.c.sha256 == bindparam("found"))

log = structlog.get_logger()


class NoSession(Unauthorized):
    slug, title = "no-session", "Not logged in, or the session has ended"


class CsrfTokenWrong(Forbidden):
    slug, title = "csrf-token-wrong", "The form does not belong to this session"


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's session: whose key opened it, the token that its forms carry, and when it ends."""

    bearer: Bearer
    csrf: str
    expires_at: datetime


class Opened(NamedTuple):
    """A new session: the headers that set its cookie, and the token that its forms carry."""

    cookie: list[Header]
    csrf: str


class Sessions:
    """Opens, finds and ends sessions. Every method raises `Overloaded` while the database is unavailable."""

    def __init__(
        self,
        database: Database,
        key_ring: KeyRing,
        secret: str,
        public_url: str,
        logins: RateLimit,
        clock: Clock,
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._secret = secret.encode()
        self._public_url = public_url
        self._logins = logins
        self._clock = clock
        self._memory = SessionMemory(clock)

    async def find(self, request: Request, *, despite_outage: bool = False) -> Session:
        """The session of the request's cookie; raises `NoSession`.

        With `despite_outage`, a session that this process found in the last minutes is valid while the
        database does not answer, for as long as its key is.
        """
        token = self._token(request)
        if token is None:
            raise NoSession
        row = await self._row(fingerprint(token), despite_outage)
        now = self._clock.now()
        if row is None or now >= min(row.expires_at, row.seen_at + IDLE):
            raise NoSession
        bearer = self._key_ring.find_by_fingerprint(row.key_sha256)
        if bearer is None:
            raise NoSession("The key of this session is revoked or expired.")
        if now >= row.seen_at + _SEEN_EVERY and not (despite_outage and self._memory.is_paused):
            await self._see(row, despite_outage)
        return Session(bearer, self._csrf(token), row.expires_at)

    async def _row(self, sha256: str, despite_outage: bool) -> SessionRow | None:
        remembered = self._memory.find(sha256) if despite_outage else None
        if remembered is not None and self._memory.is_paused:
            return remembered
        try:
            async with _available(), self._database.reading() as reading:
                found = (await reading.execute(_FIND, {"found": sha256})).first()
        except Overloaded:
            if remembered is None:
                raise
            self._memory.pause()
            return remembered
        row = None if found is None else SessionRow(**found._asdict())
        if despite_outage:
            self._memory.note(sha256, row)
        return row

    async def _see(self, row: SessionRow, despite_outage: bool) -> None:
        """Store that a session is used."""
        try:
            async with _available(), self._database.lossy_transaction() as changing:
                await changing.execute(_SEE.values(seen_at=self._clock.now()), {"found": row.sha256})
        except Overloaded:
            if not despite_outage:
                raise
            self._memory.pause()

    async def login(self, request: Request, key: str, scope: str) -> Opened:
        """Open a session with an admin or secret key.

        A session that the browser already had is ended, and the token is always new, so a cookie planted
        before the login is worth nothing. Raises `CrossOrigin`, `Unauthorized` for an unknown key,
        `TooManyRequests` past the limit of unknown keys from the address, and `Forbidden` for a publishable
        one or without `scope`.
        """
        require_same_origin(request, self._public_url)
        try:
            bearer = self._key_ring.find(f"Bearer {key.strip()}")
        except Unauthorized:
            if not is_loopback(request.address):
                self._logins.take(request.address)  # where all have one address, a stranger locks nobody out
            raise
        if bearer.kind not in ("admin", "secret"):
            raise Forbidden("A publishable key opens no session.")
        bearer.require(scope)
        token, now = secrets.token_urlsafe(32), self._clock.now()
        row = SessionRow(
            sha256=fingerprint(token), key_sha256=fingerprint(key.strip()), seen_at=now,
            expires_at=now + LIFE,
        )  # fmt: skip
        earlier = self._token(request)
        async with _available(), self._database.transaction() as session:
            if earlier is not None:
                await session.execute(_END, {"found": fingerprint(earlier)})
            await session.execute(insert(SESSIONS), row.model_dump())
        log.info("session.opened", key_id=bearer.key_id, partner=bearer.partner)
        return Opened([self._cookie(request, token, int(LIFE.total_seconds()))], self._csrf(token))

    async def logout(self, request: Request) -> list[Header]:
        """End the session of the request's cookie in every process; the headers that clear the cookie."""
        token = self._token(request)
        if token is not None:
            self._memory.note(fingerprint(token), None)
            async with _available(), self._database.transaction() as session:
                await session.execute(_END, {"found": fingerprint(token)})
            # A request that read the row before the deletion may have noted it meanwhile.
            self._memory.note(fingerprint(token), None)
        return [self._cookie(request, "", 0)]

    def check_csrf(self, request: Request, session: Session, supplied: str) -> None:
        """Raises `CrossOrigin`, or `CsrfTokenWrong` unless `supplied` is the token of this session."""
        require_same_origin(request, self._public_url)
        if not hmac.compare_digest(supplied.encode("utf-8", "replace"), session.csrf.encode()):
            raise CsrfTokenWrong("Load the page again and repeat the step.")

    def is_from_here(self, request: Request) -> bool:
        """Whether a page of the gateway itself sent the request."""
        try:
            require_same_origin(request, self._public_url)
        except CrossOrigin:
            return False
        return True

    async def delete_expired(self, at_most: int = BATCH) -> int:
        """Delete up to `at_most` sessions that ended by their age; how many."""
        return await delete_oldest(self._database, SESSIONS.c.expires_at, self._clock.now(), at_most)

    def _csrf(self, token: str) -> str:
        # The label separates this HMAC from others with the same secret.
        return hmac.new(self._secret, f"ataa-csrf\0{token}".encode(), hashlib.sha256).hexdigest()

    def _token(self, request: Request) -> str | None:
        """The token in the request's cookie, if it has the form of one."""
        wanted = self._cookie_name(request)
        for pair in request.headers.get("cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == wanted and _TOKEN.fullmatch(value):
                return value
        return None

    def _cookie_name(self, request: Request) -> str:
        # Browsers accept the prefix only from this host and over https (RFC 6265bis, 4.1.3.2).
        return "__Host-ataa-session" if is_https(request, self._public_url) else "ataa-session"

    def _cookie(self, request: Request, token: str, max_age_s: int) -> Header:
        secure = "; Secure" if is_https(request, self._public_url) else ""
        value = (
            f"{self._cookie_name(request)}={token}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict"
        )
        return b"set-cookie", f"{value}{secure}".encode()


@asynccontextmanager
async def _available() -> AsyncIterator[Any]:
    """Raises `Overloaded` for transient errors of the database within the block."""
    try:
        yield
    except Exception as error:
        reason = transient_failure(error)
        if reason is None:
            raise
        raise Overloaded(reason.value, retry_after_s=2) from error
