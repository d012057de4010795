"""API keys: their form, and the copy of all valid keys that every process keeps in memory.

Only the SHA-256 of a key is stored. Every process reads all valid keys each second, so a revoked key is
refused everywhere within two seconds (docs/api-guide.md, Keys). While the database is unavailable, a
process continues with the keys it has; keys it revoked itself stay revoked.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import structlog
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from backbone import ids
from backbone.clock import Clock
from backbone.database.database import Database
from backbone.http.caller import HEADER, HOSTED_FORM, Mode, sign_caller
from backbone.http.problems import Forbidden, Unauthorized
from backbone.wakeups import wait_for
from gateway.tables import KEYS, Key

SCOPES: Final = ("drives", "pledges", "refunds", "offline", "ledger", "moderation", "webhooks", "export")
REFRESH_S: Final = 1.0
_ALPHABET: Final = string.ascii_letters + string.digits
_VALID: Final = select(KEYS).where(KEYS.c.revoked_at.is_(None))

log = structlog.get_logger()

Kind = Literal["admin", "secret", "publishable", "public"]


class OriginNotAllowed(Forbidden):
    slug, title = "origin-not-allowed", "This key may not be used from this origin"


@dataclass(frozen=True, slots=True, eq=False)
class Bearer:
    """An authenticated caller; `signed` is the header that carries its signed identity to the services."""

    kind: Kind
    key_id: str
    partner: str
    mode: Mode
    scopes: frozenset[str]
    origins: frozenset[str]
    expires_at: datetime | None
    signed: Mapping[str, str]

    def require(self, scope: str) -> None:
        """Raises `Forbidden` without `scope`; an admin key has every scope."""
        if self.kind != "admin" and scope not in self.scopes:
            raise Forbidden(f"This needs the scope {scope}.")

    def require_origin(self, origin: str | None) -> None:
        """Raises `OriginNotAllowed` for a publishable key whose list does not contain `origin`."""
        if self.kind == "publishable" and origin not in self.origins:
            raise OriginNotAllowed("Add the page's origin to the key's list.")


def bearer(
    secret: str,
    kind: Kind,
    *,
    partner: str,
    scopes: frozenset[str],
    mode: Mode = "live",
    key_id: str = "",
    origins: frozenset[str] = frozenset(),
    expires_at: datetime | None = None,
) -> Bearer:
    """A caller with its signed header, which is computed once."""
    granted = sorted(scopes | {"admin", *SCOPES}) if kind == "admin" else sorted(scopes)
    signed = sign_caller(
        secret, partner=partner, scopes=granted, mode=mode, key_id=key_id, publishable=kind == "publishable"
    )
    return Bearer(
        kind, key_id, partner, mode, frozenset(granted), origins, expires_at, {HEADER: signed[HEADER]}
    )


def new_key(kind: Literal["secret", "publishable"], mode: Mode) -> str:
    """A new random key: a prefix with its kind and mode, then 32 letters and digits (190 bits)."""
    prefix = "sk" if kind == "secret" else "pk"
    return f"{prefix}_{mode}_" + "".join(secrets.choice(_ALPHABET) for _ in range(32))


def fingerprint(key: str) -> str:
    """The SHA-256 of a key in hexadecimal. Keys are random, so no slow password hash is needed."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class KeyRing:
    """All valid keys, in memory."""

    def __init__(self, database: Database, secret: str, admin_key: str, clock: Clock) -> None:
        self._database = database
        self._secret = secret
        self._clock = clock
        self._admin: dict[str, Bearer] = {}
        if admin_key:
            admin = bearer(secret, "admin", partner="default", scopes=frozenset(), key_id="key_admin")
            self._admin[fingerprint(admin_key)] = admin
        self._bearers: dict[str, Bearer] = dict(self._admin)
        self._revoked: set[str] = set()
        self._changes = 0
        self.loaded = False
        self.public = bearer(secret, "public", partner="public", scopes=frozenset())
        page = frozenset({"pledges", HOSTED_FORM})
        self.form = bearer(secret, "publishable", partner="default", scopes=page)

    def find(self, authorization: str | None) -> Bearer:
        """The caller of an `Authorization` header; raises `Unauthorized`."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthorized(
                "Send Authorization: Bearer and a key.", headers={"WWW-Authenticate": 'Bearer realm="ataa"'}
            )
        found = self.find_by_fingerprint(fingerprint(key.strip()))
        if found is None:
            raise Unauthorized(
                "The key is unknown, revoked or expired.",
                headers={"WWW-Authenticate": 'Bearer realm="ataa", error="invalid_token"'},
            )
        return found

    def find_by_fingerprint(self, sha256: str) -> Bearer | None:
        """The caller of the key with this fingerprint; None if it is unknown, revoked or expired."""
        found = self._bearers.get(sha256)
        expired = found and found.expires_at is not None and found.expires_at <= self._clock.now()
        return None if expired else found

    def add(self, row: Key) -> None:
        """Accept a key created by this process immediately."""
        self._changes += 1
        self._bearers[row.sha256] = self._bearer(row)

    def revoke(self, row: Key) -> None:
        """Refuse a key in this process immediately and permanently."""
        self._changes += 1
        self._revoked.add(row.sha256)
        self._bearers.pop(row.sha256, None)

    async def refresh(self) -> None:
        """Read all valid keys; the result is discarded if keys changed in this process meanwhile."""
        before = self._changes
        async with self._database.reading() as session:
            rows = [Key(**row._asdict()) for row in await session.execute(_VALID)]
        self.loaded = True
        if before != self._changes:
            return
        found = {row.sha256: self._bearers.get(row.sha256) or self._bearer(row) for row in rows}
        self._bearers = {key: one for key, one in found.items() if key not in self._revoked} | self._admin

    async def keep_fresh(self, stop: asyncio.Event) -> None:
        """Refresh every second until `stop`."""
        while not stop.is_set():
            try:
                await self.refresh()
            except (DBAPIError, OSError) as error:
                log.warning("keys.database_unavailable", error=type(error).__name__)
            await wait_for(stop, REFRESH_S)

    def _bearer(self, row: Key) -> Bearer:
        return bearer(
            self._secret,
            "secret" if row.kind == "secret" else "publishable",
            partner=row.partner,
            scopes=frozenset(row.scopes),
            mode="test" if row.mode == "test" else "live",
            key_id=row.id,
            origins=frozenset(row.origins),
            expires_at=row.expires_at,
        )


def new_row(
    key: str, *, kind: str, mode: str, partner: str, scopes: list[str], origins: list[str], name: str | None,
    expires_at: datetime | None, made_at: datetime,
) -> Key:  # fmt: skip
    """The row of `key`, which holds its fingerprint and its last four characters."""
    return Key(
        id=ids.new("key"), sha256=fingerprint(key), last_four=key[-4:], kind=kind, mode=mode, partner=partner,
        scopes=scopes, origins=origins, name=name, made_at=made_at, expires_at=expires_at,
    )  # fmt: skip
