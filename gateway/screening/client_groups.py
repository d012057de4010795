"""Clients named by a keyed hash of their address, so that no address is stored or leaves the gateway.

Each day (UTC) has a random key, shared by all gateways through their database. It is deleted after the day
that follows: then a stored hash belongs to nobody any more. An IPv6 address counts as its /64 network.
Addresses that are not public name no client: where a proxy is not listed in `ATAA_TRUSTED_PROXIES`, all
donors come from it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.wakeups import wait_for
from gateway.access.limits import is_public, network_of
from gateway.tables import CLIENT_KEYS, ClientKey

REFRESH_S: Final = 600.0
KEY_BYTES: Final = 32
_DAY_S: Final = 86_400

log = structlog.get_logger()


class ClientGroups:
    """Names clients; until the keys are known it names none."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.keys: Mapping[int, bytes] = {}

    def names(self, address: str) -> list[str]:
        """The client's name today, and the one it had yesterday; none for an address that is not public."""
        if not is_public(address):
            return []
        network, today = network_of(address).encode(), _day(self._clock.now())
        keys = (self.keys.get(day) for day in (today, today - 1))
        return [_name(key, network) for key in keys if key is not None]

    async def keep_fresh(self, stop: asyncio.Event) -> None:
        """Make the next day's key in time and delete old ones, until `stop`."""
        while not stop.is_set():
            try:
                await self.refresh()
            except (DBAPIError, OSError) as error:
                log.warning("client_keys.database_unavailable", error=type(error).__name__)
            await wait_for(stop, REFRESH_S)

    async def refresh(self) -> None:
        """Make the keys of today and tomorrow where they are missing, delete old ones, and read all."""
        today = _day(self._clock.now())
        made = [ClientKey(day=day, secret=secrets.token_bytes(KEY_BYTES)) for day in (today, today + 1)]
        async with self._database.transaction() as session:
            await session.execute(_INSERTS[session.dialect.name], [row.model_dump() for row in made])
            await session.execute(_DELETE, {"before": today - 1})
            rows = (await session.execute(select(CLIENT_KEYS))).all()
        self.keys = {row.day: row.secret for row in rows}


def _day(now: datetime) -> int:
    return int(now.astimezone(UTC).timestamp()) // _DAY_S


def _name(key: bytes, network: bytes) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, network, "sha256")[:15]).decode()


_INSERTS: Final = {
    "sqlite": sqlite.insert(CLIENT_KEYS).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(CLIENT_KEYS).on_conflict_do_nothing(),
}
_DELETE: Final = delete(CLIENT_KEYS).where(CLIENT_KEYS.c.day < bindparam("before"))
