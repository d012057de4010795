"""Migrations of existing rows, on both stores."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from backbone.database.database import Database
from services.pledges.app import MIGRATIONS
from services.pledges.tables import MESSAGING_TABLES
from tests.engines import fresh_postgres
from tests.pledges.harness import pledges_harness
from tests.pledges.moderation.test_decisions import listed, texts_of

DRIVE = "drv_01frtz5n00000000000000000a"
TEXTS = (
    ("Layla", "For a warm night", False),
    ("Layla", None, False),
    ("Layla", None, True),
    ("Layla", "evil.com", True),
    (None, "fuck", False),
    (None, None, False),
    ("\u200b", None, False),
)
"""Name, message, anonymous."""


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'pledges.db'}"
    else:
        async with fresh_postgres() as fresh:
            yield fresh


def pledge_id(number: int) -> str:
    return f"plg_{number:026}"


async def at_version(url: str, version: str, *rows: tuple[str, dict[str, Any]]) -> None:
    """A database at a version of the schema, with rows."""

    def build(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        command.upgrade(config, version)
        for table, values in rows:
            names, holes = ", ".join(values), ", ".join(f":{name}" for name in values)
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({holes})"), values)

    database = Database(url, MESSAGING_TABLES, synchronous="OFF")
    async with database.transaction() as session:
        await session.run_sync(lambda plain: build(plain.connection))
    await database.close()


def a_drive() -> tuple[str, dict[str, Any]]:
    nothing = json.dumps([])
    return "drives", {
        "id": DRIVE, "slug": "winter", "partner": "default", "state": "live", "version": 1,
        "title": json.dumps({"en": "Winter"}), "description": "null", "currency": "USD", "goal": 100000,
        "beneficiaries": nothing, "zakat_eligible": False, "impact": nothing, "milestones": nothing,
        "menu": nothing, "test": False, "created_at": 1, "changed_at": 1,
    }  # fmt: skip


def a_pledge(number: int) -> tuple[str, dict[str, Any]]:
    return "pledges", {
        "id": pledge_id(number), "drive_id": DRIVE, "donor_id": "dnr_1", "partner": "default", "version": 1,
        "status": "paid", "amount": 2500, "currency": "USD", "checkout_mode": "hosted", "test": False,
        "made_at": 1,
    }  # fmt: skip


def texts(number: int, name: str | None, message: str | None, anonymous: bool) -> tuple[str, dict[str, Any]]:
    return "words", {
        "pledge_id": pledge_id(number), "name": name, "message": message, "anonymous": anonymous,
        "approved": False,
    }  # fmt: skip


async def test_stored_texts_are_kept_and_shown_as_before_moderation(url: str, tmp_path: Path) -> None:
    numbers = range(len(TEXTS))
    rows = [a_drive(), *map(a_pledge, numbers), *(texts(number, *TEXTS[number]) for number in numbers)]
    await at_version(url, "0003", *rows)
    async with pledges_harness(tmp_path, database_url_pledges=url) as harness:
        database = Database(url, MESSAGING_TABLES)
        async with database.reading() as session:
            stored = await session.execute(
                text(
                    "SELECT name, message, anonymous, state, drive_id, decided FROM words ORDER BY pledge_id"
                )
            )
            found = [tuple(row) for row in stored]
        await database.close()
        assert [(name, message, bool(anonymous)) for name, message, anonymous, *_ in found] == list(TEXTS)
        moderated = [number in (0, 1, 3, 4, 6) for number in numbers]
        assert [row[3:] for row in found] == [
            ("approved" if one else None, DRIVE if one else None, 0) for one in moderated
        ]
        shown = [(await texts_of(harness, pledge_id(number)))[:2] for number in numbers]
        assert shown == [
            ("Layla", "For a warm night"), ("Layla", None), (None, None), (None, None), (None, "fuck"),
            (None, None), (None, None),
        ]  # fmt: skip
        assert [one["pledge"] for one in await listed(harness, "approved")] == [
            pledge_id(number) for number in reversed(numbers) if moderated[number]
        ]


async def test_stored_decisions_are_listed_under_their_drive(url: str, tmp_path: Path) -> None:
    decision = {
        "pledge_id": pledge_id(0), "version": 1, "at": 5, "key_id": "key_1", "partner": "default",
        "from_state": "approved", "to_state": "hidden", "note": None,
    }  # fmt: skip
    await at_version(
        url, "0005", a_drive(), a_pledge(0), texts(0, "Layla", "Hello", False), ("decisions", decision)
    )
    async with pledges_harness(tmp_path, database_url_pledges=url) as harness:
        (found,) = (await harness.read("/v1/drives/winter/decisions")).json()["data"]
        assert (found["pledge"], found["to"], found["key"], found["moderator"]) == (
            pledge_id(0), "hidden", "key_1", None
        )  # fmt: skip
