"""Idempotency keys: stored with a hash of the body and the reply, in the transaction of the change.

The same key with the same body gets the first answer again; with another body it is refused.
Keys are scoped to partner and route, so a rotated API key does not double a gift. They are kept
for at least a day (API.md, Manners).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

from fastapi import Depends, Header, Response
from sqlalchemy import (
    Insert,
    Table,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from backbone.database.database import Database, messaging_tables_of
from backbone.database.pair_lookup import PairLookup
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
    slug, title = "idempotency-key-reused", "This Idempotency-Key came with another body before"


class RequestInProgress(Conflict):
    slug, title = "request-in-progress", "The first request with this Idempotency-Key still runs"


class Key(NamedTuple):
    """An idempotency key within its scope (`partner:route`)."""

    scope: str
    key: str


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A remembered request; `status` is None while it still runs."""

    body_hash: str
    status: int | None
    reply: bytes | None

    def replay(self, body_hash: str) -> tuple[int, bytes]:
        """The first answer again; raises `KeyReused` or `RequestInProgress`."""
        if self.body_hash != body_hash:
            detail = "Send the same body again, or a new key."
            raise KeyReused(detail, errors=[{"pointer": "/header/idempotency-key", "detail": detail}])
        if self.status is None:
            raise RequestInProgress("Ask again in a moment.")
        return self.status, self.reply or b""


def hash_body(body: bytes) -> str:
    """What tells two bodies apart: SHA-256 of the bytes as sent."""
    return hashlib.sha256(body).hexdigest()


async def find_replies(session: AsyncSession, keys: Sequence[Key]) -> Mapping[Key, StoredReply]:
    """What is remembered of `keys`."""
    return await session.run_sync(find_replies_in, keys)


def find_replies_in(session: Session, keys: Sequence[Key]) -> Mapping[Key, StoredReply]:
    """`find_replies` for code that `AsyncSession.run_sync` runs as a whole."""
    if not keys:
        return {}
    rows = _find_statement(messaging_tables_of(session).idempotency).find(session.connection(), keys)
    return {Key(row.scope, row.key): StoredReply(row.body_hash, row.status, row.reply) for row in rows}


async def record_new(
    session: AsyncSession, answers: Sequence[tuple[Key, StoredReply]], at: datetime | None = None
) -> None:
    """Store new keys with their answers; raises the database's error where one is already there."""
    await session.run_sync(record_new_in, answers, at)


def record_new_in(
    session: Session, answers: Sequence[tuple[Key, StoredReply]], at: datetime | None = None
) -> None:
    """`record_new` for code that `AsyncSession.run_sync` runs as a whole."""
    if not answers:
        return
    made_at = at or datetime.now(UTC)
    rows = [
        {"scope": key.scope, "key": key.key, "body_hash": stored.body_hash, "status": stored.status,
         "reply": stored.reply, "made_at": made_at}
        for key, stored in sorted(answers, key=lambda answer: answer[0])  # two processes must not cross
    ]  # fmt: skip
    session.connection().execute(_insert_statement(messaging_tables_of(session).idempotency), rows)


# Built once a table: putting a statement together costs more than running it.


@lru_cache(maxsize=32)
def _find_statement(table: Table) -> PairLookup:
    return PairLookup(select(table), table.c.scope, table.c.key)


@lru_cache(maxsize=32)
def _insert_statement(table: Table) -> Insert:
    return insert(table)


async def claim(session: AsyncSession, key: Key, body_hash: str) -> StoredReply | None:
    """Take `key` for a request that outlives this transaction; what was there before, or None."""
    row = {"scope": key.scope, "key": key.key, "body_hash": body_hash, "made_at": datetime.now(UTC)}
    table = messaging_tables_of(session).idempotency
    made = await session.execute(insert_new(session, table, [row], table.c.key))
    if made.first() is not None:
        return None
    return (await find_replies(session, [key]))[key]


async def complete(session: AsyncSession, key: Key, status: int, reply: bytes) -> None:
    """Give a claimed key its answer."""
    table = messaging_tables_of(session).idempotency
    await session.execute(
        update(table)
        .where(table.c.scope == key.scope, table.c.key == key.key)
        .values(status=status, reply=reply)
    )


async def release(session: AsyncSession, key: Key) -> None:
    """Forget a claimed key whose request changed nothing, so that it may be tried again."""
    table = messaging_tables_of(session).idempotency
    await session.execute(delete(table).where(table.c.scope == key.scope, table.c.key == key.key))


async def delete_expired(database: Database, at_most: int = BATCH) -> int:
    """Drop up to `at_most` keys older than `KEEP`, the oldest first; how many there were."""
    made_at = database.messaging_tables.idempotency.c.made_at
    return await delete_oldest(database, made_at, datetime.now(UTC) - KEEP, at_most)


async def optional_key(idempotency_key: Annotated[str | None, Header()] = None) -> str | None:
    """FastAPI dependency: the request's key, if it has one; raises `KeyMalformed`."""
    if idempotency_key is not None and _PATTERN.fullmatch(idempotency_key) is None:
        raise KeyMalformed("1 to 255 visible ASCII characters.")
    return idempotency_key


async def required_key(key: Annotated[str | None, Depends(optional_key)]) -> str:
    """FastAPI dependency: the request's key; raises `KeyMissing`."""
    if key is None:
        raise KeyMissing("Send an Idempotency-Key header, new for each intention.")
    return key


OptionalKey = Annotated[str | None, Depends(optional_key)]
RequiredKey = Annotated[str, Depends(required_key)]


def keyed_response(status: int, reply: bytes, *, replayed: bool) -> Response:
    """The JSON answer, marked `Idempotency-Replayed: true` where it was given before."""
    headers = {"Idempotency-Replayed": "true"} if replayed else {}
    return Response(reply, status, headers=headers, media_type="application/json")
