"""Idempotency keys (docs/api-guide.md): a repeated request gets the first reply, whatever happened since.

A key is stored with a hash of its request body and with the reply, in the transaction of the change. The
same key with the same body gets the stored reply; with another body it is refused. Keys are scoped to a
partner and a route, so a rotated API key does not duplicate a donation. They are kept for at least a day.

`run_once` does a change that fits into one transaction. `claim` and `complete` are its two halves, for a
request that calls another service in between. `find_replies_in` and `store_replies_in` are for batches.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

from fastapi import Depends, Header, Response
from sqlalchemy import (
    Insert,
    Table,
    insert,
    select,
    update,
)

from backbone.database.database import Database
from backbone.database.pair_lookup import PairLookup
from backbone.database.transaction import SyncTransaction, Transaction, messaging_tables_of
from backbone.http.problems import Conflict, Invalid, Problem
from backbone.messaging.inbox import insert_new
from backbone.periodic import BATCH, delete_oldest

KEEP: Final = timedelta(hours=25)
_PATTERN: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


class KeyMissing(Problem):
    status, slug, title = 400, "idempotency-key-missing", "An Idempotency-Key is required"


class KeyMalformed(Problem):
    status, slug, title = 400, "idempotency-key-malformed", "The Idempotency-Key is malformed"


class KeyReused(Invalid):
    slug, title = "idempotency-key-reused", "This Idempotency-Key was used with another request body"


class RequestInProgress(Conflict):
    slug, title = "request-in-progress", "The first request with this Idempotency-Key is still running"


class ScopedKey(NamedTuple):
    """An idempotency key within its scope (`partner:route`)."""

    scope: str
    key: str


class KeyedReply(NamedTuple):
    """The reply to a request, and whether it was first given to an earlier request with the same key."""

    status: int
    body: bytes
    replayed: bool


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The stored state of a request; `status` is None while it is still running."""

    body_hash: str
    status: int | None
    reply: bytes | None

    def replay(self, body_hash: str) -> KeyedReply:
        """The stored reply. Raises `KeyReused` for another body, `RequestInProgress` without one."""
        if self.body_hash != body_hash:
            detail = "Send the same body again, or a new key."
            raise KeyReused(detail, errors=[{"pointer": "/header/idempotency-key", "detail": detail}])
        if self.status is None:
            raise RequestInProgress("Try again in a moment.")
        return KeyedReply(self.status, self.reply or b"", replayed=True)


def hash_body(body: bytes) -> str:
    """SHA-256 of a request body as it was sent."""
    return hashlib.sha256(body).hexdigest()


Create = Callable[[Transaction], Awaitable[bytes]]
"""Makes a change in the transaction of the session; returns the body of the 201 reply."""

Authorize = Callable[[Transaction], Awaitable[None]]
"""Raises where the caller may not do this, nor see the reply of an earlier request."""


async def run_once(
    database: Database,
    key: ScopedKey | None,
    body_hash: str,
    create: Create,
    *,
    authorize: Authorize | None = None,
) -> KeyedReply:
    """Run `create` and store its reply under `key` in one transaction, or return the reply stored there.

    Without a key, `create` runs every time. `authorize` runs before a stored reply is returned and raises
    where the caller may not have it: keys belong to a partner, whose API keys may have different rights.
    Raises what `create` and `authorize` raise, then nothing is stored; `KeyReused`, `RequestInProgress`.
    """
    async with database.transaction() as session:
        if authorize is not None:
            await authorize(session)
        if key is not None and (stored := await claim(session, key, body_hash)) is not None:
            return stored.replay(body_hash)
        body = await create(session)
        if key is not None:
            await complete(session, key, 201, body)
        return KeyedReply(201, body, replayed=False)


async def claim(session: Transaction, key: ScopedKey, body_hash: str) -> StoredReply | None:
    """Take `key` for a request; None where it is new, otherwise what is stored under it.

    Where another transaction has taken the key and not ended yet, PostgreSQL waits for it.
    """
    row = {"scope": key.scope, "key": key.key, "body_hash": body_hash, "made_at": datetime.now(UTC)}
    table = messaging_tables_of(session).idempotency
    inserted = await session.execute(insert_new(session, table, "key"), row)
    if inserted.first() is not None:
        return None
    return (await session.run_sync(find_replies_in, [key]))[key]


async def complete(session: Transaction, key: ScopedKey, status: int, reply: bytes) -> None:
    """Store the reply of a claimed key."""
    table = messaging_tables_of(session).idempotency
    await session.execute(
        update(table)
        .where(table.c.scope == key.scope, table.c.key == key.key)
        .values(status=status, reply=reply)
    )


def find_replies_in(session: SyncTransaction, keys: Sequence[ScopedKey]) -> Mapping[ScopedKey, StoredReply]:
    """What is stored under those of `keys` that were used before."""
    if not keys:
        return {}
    rows = _find_statement(messaging_tables_of(session).idempotency).find(session, keys)
    return {ScopedKey(row.scope, row.key): StoredReply(row.body_hash, row.status, row.reply) for row in rows}


def store_replies_in(
    session: SyncTransaction, replies: Sequence[tuple[ScopedKey, StoredReply]], now: datetime
) -> None:
    """Store new keys with their replies. Raises IntegrityError where another process has stored one."""
    if not replies:
        return
    rows = [
        {"scope": key.scope, "key": key.key, "body_hash": stored.body_hash, "status": stored.status,
         "reply": stored.reply, "made_at": now}
        for key, stored in sorted(replies, key=lambda reply: reply[0])  # one order, or processes may deadlock
    ]  # fmt: skip
    session.execute(_insert_statement(messaging_tables_of(session).idempotency), rows)


# Cached per table: building a statement costs more than executing it.


@lru_cache(maxsize=32)
def _find_statement(table: Table) -> PairLookup:
    return PairLookup(select(table), table.c.scope, table.c.key)


@lru_cache(maxsize=32)
def _insert_statement(table: Table) -> Insert:
    return insert(table)


async def delete_expired(database: Database, at_most: int = BATCH) -> int:
    """Delete up to `at_most` keys older than `KEEP`, the oldest first; return how many."""
    made_at = database.messaging_tables.idempotency.c.made_at
    return await delete_oldest(database, made_at, datetime.now(UTC) - KEEP, at_most)


async def optional_key(idempotency_key: Annotated[str | None, Header()] = None) -> str | None:
    """FastAPI dependency: the request's key, if it has one; raises `KeyMalformed`."""
    if idempotency_key is not None and _PATTERN.fullmatch(idempotency_key) is None:
        raise KeyMalformed("Use 1 to 255 visible ASCII characters.")
    return idempotency_key


async def required_key(key: Annotated[str | None, Depends(optional_key)]) -> str:
    """FastAPI dependency: the request's key; raises `KeyMissing`."""
    if key is None:
        raise KeyMissing("Send an Idempotency-Key header, a new one for each new request.")
    return key


OptionalKey = Annotated[str | None, Depends(optional_key)]
RequiredKey = Annotated[str, Depends(required_key)]


def keyed_response(reply: KeyedReply) -> Response:
    """The JSON response; a repeated reply carries the header `Idempotency-Replayed: true`."""
    headers = {"Idempotency-Replayed": "true"} if reply.replayed else {}
    return Response(reply.body, reply.status, headers=headers, media_type="application/json")
