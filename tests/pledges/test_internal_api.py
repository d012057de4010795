"""The internal API, the schema, and a crash between commit and reply."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydantic import ValidationError
from sqlalchemy import Connection

from backbone.bus.sqlite import SqliteBus
from backbone.database.database import Database
from services.pledges.app import MIGRATIONS, compose
from services.pledges.settings import PledgesSettings
from services.pledges.tables import MESSAGING_TABLES, Table
from tests.pledges.harness import Harness, a_pledge, pledges_harness, usd
from tests.waiting import PATIENCE_S

DONOR = {"name": "Sara", "email": "sara@example.org", "locale": "ar"}


async def test_internal_endpoints_return_only_the_fields_each_service_needs(harness: Harness) -> None:
    await harness.drive(title={"en": "Winter", "ar": "شتاء"})
    body = a_pledge(donor=DONOR, return_url="https://app.example/thanks", reference="r-1")
    made = (await harness.pledge(body, partner="shop")).json()
    asked = {"ids": [made["id"], "plg_unknown"]}
    public = {name: value for name, value in made.items() if name not in {"checkout", "queue"}}
    assert await harness.post_internal("/internal/pledges", **asked) == {
        made["id"]: {"pledge": public, "partner": "shop", "test": False}
    }
    assert await harness.post_internal("/internal/checkout-details", **asked) == {
        made["id"]: {
            **DONOR,
            "return_url": "https://app.example/thanks",
            "title": "شتاء",
            "slug": "winter",
            "drive_state": "live",
            "test": False,
        }
    }
    receipt = {**DONOR, "title": "شتاء", "amount": usd("25.00")}
    assert await harness.post_internal("/internal/receipts", **asked) == {made["id"]: receipt}
    drives = await harness.post_internal("/internal/drives", refs=["winter", made["drive"], "nobody"])
    assert set(drives) == {"winter", made["drive"]}
    assert drives["winter"] == (await harness.get("/v1/drives/winter")).json()


async def test_receipt_omits_a_name_that_may_not_be_shown(harness: Harness) -> None:
    await harness.drive()
    body = a_pledge(donor={"name": "see evil.com", "email": "sara@example.org"})
    pledge = (await harness.pledge(body)).json()["id"]
    receipt = (await harness.post_internal("/internal/receipts", ids=[pledge]))[pledge]
    assert (receipt["name"], receipt["email"]) == (None, "sara@example.org")


@pytest.mark.parametrize("path", ["pledges", "checkout-details", "words", "receipts", "drives"])
async def test_internal_endpoints_require_the_internal_scope(harness: Harness, path: str) -> None:
    assert (await harness.post(f"/internal/{path}", {"ids": []}, scopes=("pledges",))).status == 403
    assert (
        await harness.post(f"/internal/{path}", {"ids": []}, headers={"ataa-caller": "x.y"})
    ).status == 401
    bodies: list[Any] = [{}, {"ids": "plg"}, {"ids": [1]}, []]
    for body in bodies:
        assert (await harness.post(f"/internal/{path}", body, scopes=("internal",))).status == 422


async def test_quiet_counts_unpublished_events(harness: Harness) -> None:
    await harness.drive()
    assert (await harness.get("/internal/quiet")).json()["outbox"] == 2
    assert (await harness.get("/internal/books")).json() == {}


async def test_migrated_schema_matches_the_tables(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'pledges.db'}", MESSAGING_TABLES)
    await database.migrate(MIGRATIONS)
    await database.migrate(MIGRATIONS)

    def differences(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))

    async with database.reading() as session:
        assert await session.run_sync(lambda plain: differences(plain.connection)) == []
    await database.close()


async def test_missing_token_secret_prevents_startup(tmp_path: Path) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    with pytest.raises(ValueError, match="ATAA_TOKEN_SECRET"):
        compose(PledgesSettings(data_dir=tmp_path), bus)
    await bus.close()
    with pytest.raises(ValidationError):
        PledgesSettings(database_synchronous="SOMETIMES")


async def test_crash_between_commit_and_reply_neither_loses_nor_duplicates_a_pledge(
    tmp_path: Path,
) -> None:
    async with pledges_harness(tmp_path) as harness:
        await harness.drive()
    died = await asyncio.to_thread(_pledge_until_it_dies, tmp_path)
    assert died == -signal.SIGKILL
    async with pledges_harness(tmp_path) as harness:
        again = await harness.pledge(key="k")
        assert again.status == 201
        assert again.headers["idempotency-replayed"] == "true"
        assert (await harness.rows())["pledges"] == 1


def _pledge_until_it_dies(folder: Path) -> int:
    """Run a process that makes a pledge and is killed before its reply; return its exit status."""
    script = """
import asyncio, sys
from pathlib import Path
from tests.pledges.harness import pledges_harness
async def main():
    async with pledges_harness(Path(sys.argv[1])) as stage:
        await stage.pledge(key="k")
asyncio.run(main())
"""
    environment = os.environ | {"ATAA_CRASH_AT": "pledges.intake.after_commit", "PYTHONPATH": "."}
    return subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, timeout=PATIENCE_S, check=False
    ).returncode
