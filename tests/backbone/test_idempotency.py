"""Idempotent requests, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert

from backbone import idempotency
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.problems import Forbidden
from backbone.idempotency import Create, KeyReused, RequestInProgress, ScopedKey, run_once
from tests.backbone.notes import Note, noted, open_database, sqlite_url
from tests.engines import fresh_postgres

KEY = ScopedKey("default:notes", "k1")


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with open_database(sqlite_url(tmp_path)) as opened:
            yield opened
    else:
        async with fresh_postgres() as url, open_database(url) as opened:
            yield opened


def creating(text: str) -> Create:
    """Stores a note; its reply names it."""

    async def create(session: Transaction) -> bytes:
        await session.execute(insert(Note), [{"about": "k", "text": text}])
        return text.encode()

    return create


async def test_repeated_request_gets_the_first_reply_and_changes_nothing(database: Database) -> None:
    assert await run_once(database, KEY, "hash", creating("first")) == (201, b"first", False)
    assert await run_once(database, KEY, "hash", creating("second")) == (201, b"first", True)
    assert await noted(database) == [("k", "first")]


async def test_request_without_a_key_runs_every_time(database: Database) -> None:
    for _ in range(2):
        assert await run_once(database, None, "hash", creating("note")) == (201, b"note", False)
    assert len(await noted(database)) == 2


async def test_key_with_another_body_is_refused(database: Database) -> None:
    await run_once(database, KEY, "hash", creating("first"))
    with pytest.raises(KeyReused):
        await run_once(database, KEY, "another hash", creating("second"))
    assert await noted(database) == [("k", "first")]


async def test_failed_request_does_not_use_up_its_key(database: Database) -> None:
    async def fail(session: Transaction) -> bytes:
        await creating("lost")(session)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await run_once(database, KEY, "hash", fail)
    assert await run_once(database, KEY, "another hash", creating("kept")) == (201, b"kept", False)
    assert await noted(database) == [("k", "kept")]


async def test_stored_reply_is_returned_only_to_an_authorized_caller(database: Database) -> None:
    async def refuse(_session: Transaction) -> None:
        raise Forbidden

    await run_once(database, KEY, "hash", creating("first"))
    with pytest.raises(Forbidden):
        await run_once(database, KEY, "hash", creating("second"), authorize=refuse)


async def test_concurrent_requests_with_one_key_run_once(database: Database) -> None:
    replies = await asyncio.gather(*(run_once(database, KEY, "hash", creating(str(n))) for n in range(8)))
    (first,) = (reply for reply in replies if not reply.replayed)
    assert {reply.body for reply in replies} == {first.body}
    assert await noted(database) == [("k", first.body.decode())]


async def test_claimed_key_is_in_progress_until_it_is_completed(database: Database) -> None:
    async with database.transaction() as session:
        assert await idempotency.claim(session, KEY, "hash") is None
    async with database.transaction() as session:
        running = await idempotency.claim(session, KEY, "hash")
    assert running is not None
    with pytest.raises(RequestInProgress):
        running.replay("hash")
    async with database.transaction() as session:
        await idempotency.complete(session, KEY, 202, b"[]")
        done = await idempotency.claim(session, KEY, "hash")
    assert done is not None
    assert done.replay("hash") == (202, b"[]", True)
