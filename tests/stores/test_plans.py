"""No statement of a request or of periodic work reads the whole of a table that grows with every gift.

Each service does its work on real stores while its statements are recorded; the store then says how
it would run them. PostgreSQL's plans depend on what is stored: there 300,000 rows of everything are
there before. SQLite's, without ANALYZE, do not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg
import pytest
from pydantic import SecretStr

from backbone import idempotency, ids, inbox
from backbone.bus_sqlite import SqliteBus
from backbone.contracts.payments import PaymentStatus
from backbone.database import Database, microseconds
from services.pledges import app as pledges_app
from services.pledges.settings import PledgesSettings
from services.pledges.tables import DOORS as PLEDGES_DOORS
from tests.pledges.stage import SECRET, Stage, a_drive, a_pledge
from tests.pledges.test_payments_heard import change, heard
from tests.real import fresh_postgres
from tests.stores.plans import recording, scans

ROWS: Final = 300_000


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'service.db'}"
    else:
        async with fresh_postgres() as fresh:
            yield fresh


async def fill(url: str, *statements: str) -> None:
    """Run these on PostgreSQL, `{rows}` being a series of numbers, and gather statistics."""
    if url.startswith("sqlite"):
        return
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            now = microseconds(datetime.now(UTC))
            await connection.execute(
                statement.format(rows=f"generate_series(1, {ROWS}) AS n", now=f"{now}::bigint")
            )
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


# Pledges.

PLEDGES_GROWING: Final = ("pledges", "donors", "words", "payments", "idempotency", "inbox")
PLEDGES_BEFORE: Final = (
    """INSERT INTO drives (id, slug, partner, state, version, title, description, currency, goal,
       beneficiaries, zakat_eligible, impact, milestones, menu, test, created_at, changed_at)
       VALUES ('drv_old', 'old', 'default', 'live', 2, '"Old"', 'null', 'USD', 1, '[]', false, '[]', '[]',
       '[]', false, 0, 0)""",
    """INSERT INTO donors SELECT 'dnr_' || n, 'big', decode(lpad(to_hex(n), 64, '0'), 'hex')
       FROM {rows}""",
    """INSERT INTO pledges (id, drive_id, donor_id, partner, version, status, amount, currency, reference,
       checkout_mode, test, made_at) SELECT 'plg_' || lpad(n::text, 26, '0'), 'drv_old', 'dnr_' || n,
       'big', 2, CASE WHEN n % 1000 = 0 THEN 'refunded' ELSE 'paid' END, 2500, 'USD', 'r' || n,
       'hosted', false, n FROM {rows}""",
    """INSERT INTO words (pledge_id, name, anonymous, approved)
       SELECT 'plg_' || lpad(n::text, 26, '0'), 'Sara', false, true FROM {rows}""",
    """INSERT INTO payments SELECT 'pay_' || n, 'plg_' || lpad(n::text, 26, '0'), 'drv_old', 1, 'captured',
       'USD', 2500, 0, 0 FROM {rows}""",
    "INSERT INTO idempotency SELECT 'big:pledges', 'k' || n, 'h', 201, NULL, n FROM {rows}",
    "INSERT INTO inbox SELECT 'pledges', 'evt_' || n, {now} FROM {rows}",
)


@asynccontextmanager
async def pledges(folder: Path, url: str) -> AsyncIterator[Stage]:
    database = Database(url, PLEDGES_DOORS)
    await database.migrate(pledges_app.MIGRATIONS)
    await database.close()
    await fill(url, *PLEDGES_BEFORE)
    bus = SqliteBus(folder / "bus.db", synchronous="OFF")
    settings = PledgesSettings(
        data_dir=folder, internal_secret=SecretStr(SECRET), token_secret=SecretStr("t" * 20),
        database_url_pledges=url, database_synchronous="OFF",
    )  # fmt: skip
    service = pledges_app.compose(settings, bus)
    await service.start()
    try:
        yield Stage(folder, bus, service)
    finally:
        await service.close()
        await bus.close()


async def test_pledges_scans_nothing_that_grows(tmp_path: Path, url: str) -> None:
    with recording() as recorded:
        async with pledges(tmp_path, url) as stage:
            await _pledge_and_pay(stage)
            database = Database(url, PLEDGES_DOORS)
            await inbox.forget_old(database)
            await idempotency.forget_old(database)
            await database.close()
    recorded.statements = {
        statement: parameters
        for statement, parameters in recorded.statements.items()
        if "sum(payments.captured" not in statement  # the books are counted anew each time, by design
    }
    found = await scans(url, recorded, PLEDGES_GROWING)
    assert not found, "\n\n".join(f"{reason}: {statement}" for statement, reason in found.items())


async def _pledge_and_pay(stage: Stage) -> None:
    await stage.post("/v1/drives", a_drive())
    await stage.post("/v1/drives/winter/creators", {"slug": "abo", "name": "Abo"}, key="c")
    await stage.post("/v1/drives/winter/open")
    for _ in range(2):  # the second time every donor is known
        people = [
            a_pledge(donor={"email": f"d{n}@example.org"}, creator="abo", message="x") for n in range(80)
        ]
        replies = await asyncio.gather(
            *(stage.pledge(one, partner=f"p{n % 3}", key=f"again-{n}") for n, one in enumerate(people)),
            *(stage.pledge(one, partner=f"p{n % 3}") for n, one in enumerate(people)),
        )
        assert {reply.status for reply in replies} == {201}
    made = [reply.json()["id"] for reply in replies]
    for query in ("", "drive=winter", "drive=old", "reference=r5", "status=refunded", f"after={made[0]}"):
        for partner in ("p0", "big", "nobody"):
            assert (await stage.read("/v1/pledges", query, partner=partner)).status == 200
    assert (await stage.post(f"/v1/pledges/{made[0]}/cancel", partner="p0")).status == 200
    for path in ("pledges", "checkout-details", "words", "receipts"):
        await stage.ask(f"/internal/{path}", ids=made)
    async with stage.working():
        captured = [
            change(ids.new("pay"), 1, PaymentStatus.CAPTURED, pledge=each, money=(2500, 0, 0))
            for each in made
        ]
        await stage.hear(*captured)
        await heard(stage)
