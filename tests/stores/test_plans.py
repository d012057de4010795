"""No statement of a request or of periodic work reads the whole of a table that grows with every donation.

Each service does its work on real databases while its statements are recorded; the database then explains
their plans. PostgreSQL's plans depend on the stored data, so each table is filled with 300,000 rows
beforehand. SQLite's do not, without ANALYZE, but do not tell either how many rows a search finds: there the
steps of each execution are counted, with 20,000 rows. Leaderboard's rows belong to the drive that receives
more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from pydantic import SecretStr
from sqlalchemy import bindparam, func, select, update

from backbone import idempotency, ids
from backbone.bus.sqlite import SqliteBus
from backbone.contracts.payments import PaymentStatus
from backbone.contracts.pledges import (
    AlertControl,
    AlertsControlled,
    DriveState,
    MessageModerated,
    MessageState,
    PledgeChanged,
    PledgeStatus,
    Source,
)
from backbone.database.columns import microseconds
from backbone.database.database import Database
from backbone.http.caller import sign_caller
from backbone.http.service_client import InProcessServiceClient
from backbone.ids import DriveId, PledgeId
from backbone.messaging import inbox
from services.leaderboard import app as leaderboard_app
from services.leaderboard import standings, starting_anew
from services.leaderboard import tables as leaderboard_tables
from services.notify import app as notify_app
from services.notify import tables as notify_tables
from services.payments import app as payments_app
from services.payments import tables as payments_tables
from services.payments.checkout.pruning import prune_attempts
from services.payments.settlement.queries import fee_and_payout
from services.payments.webhooks.log import prune_applied, prune_texts
from services.pledges import app as pledges_app
from services.pledges import tables as pledges_tables
from services.pledges.settings import PledgesSettings
from tests.engines import fresh_postgres
from tests.leaderboard import builders
from tests.notify import harness as notify_stage
from tests.payments import harness as payments_stage
from tests.pledges.harness import SECRET, Harness, a_pledge
from tests.pledges.test_payment_events import change, wait_until_consumed
from tests.stores.plans import Recorded, fill, recording, scans, stops_at_its_limit, walks_to_its_limit
from tests.waiting import until

ROWS: Final = 300_000
NOW: Final = f"{microseconds(datetime.now(UTC))}"
RECENT: Final = {"event_id": "'evt_' || n", "heard_at": NOW}

RECOUNTED: Final = (
    "sum((payments.captured",
    "sum(payments.captured",
    "sum(CASE WHEN (postings.debit",
    "GROUP BY postings.debit",
)
"""The books and their audit recompute everything, by design."""

RANKED: Final = "AS board \nWHERE board.raised >"
"""The rank of a donor is the number of those above, counted in an index."""

CLEARED: Final = ("_donations != 0", "raised > 0\n LIMIT", "raised > 0 \n LIMIT")
"""Sums that begin anew are set to nothing, thousands of rows at a time."""

WALKED: Final = (
    "SELECT webhooks.number, webhooks.state, webhooks.received_at \nFROM webhooks \nWHERE webhooks.number >",
    "SELECT webhooks.number AS number, webhooks.received_at AS received_at \nFROM webhooks",
    "SELECT payments.made_at \nFROM payments ORDER BY payments.number",
    "payouts.next_try_at \nFROM payouts ORDER BY payouts.created_at DESC, payouts.id DESC",
)
"""Hourly pruning of webhooks reads its next 500 rows in the order of their key, and stops there. So do the
search for the oldest payment, one row, and the first page of payouts."""


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The address of a fresh PostgreSQL database; empty for SQLite, whose file the service chooses."""
    if request.param == "sqlite":
        yield ""
    else:
        async with fresh_postgres() as fresh:
            yield fresh


async def assert_no_scans(
    url: str, recorded: Recorded, growing: Collection[str], walked: Collection[str] = ()
) -> None:
    """Fail with the statements that read all of one of the tables `growing`."""
    for statement in list(recorded.statements):
        if any(text in statement for text in (*RECOUNTED, RANKED, *CLEARED)):
            del recorded.statements[statement]
    assert len(recorded.statements) > 5
    unused = [text for text in walked if not any(text in statement for statement in recorded.statements)]
    assert not unused, "exempt, but not executed"
    found = await scans(url, recorded, growing, walked)
    assert not found, "\n\n".join(f"{reason}: {statement}" for statement, reason in found.items())


async def test_search_that_finds_all_of_a_drive_is_reported(tmp_path: Path) -> None:
    """Although SQLite's plan names a search in an index, and although the first execution found nothing."""
    url = f"sqlite:///{tmp_path / 'leaderboard.db'}"
    database = Database(url, leaderboard_tables.MESSAGING_TABLES)
    await database.migrate(leaderboard_app.MIGRATIONS)
    await database.close()
    await fill(url, leaderboard_tables.Table.metadata, ROWS, {"payments": LEADERBOARD["payments"]})
    payments = leaderboard_tables.payments
    statement = select(func.sum(payments.c.refunded)).where(
        payments.c.drive_id == bindparam("of_drive"), payments.c.number >= bindparam("first")
    )
    for firsts, is_found in (((9_999_999, 9_999_999), False), ((9_999_999, 0), True), ((0,), True)):
        database = Database(url, leaderboard_tables.MESSAGING_TABLES)
        with recording() as recorded:
            for first in firsts:
                async with database.reading() as session:
                    await session.execute(statement, {"of_drive": builders.DRIVE, "first": first})
        await database.close()
        assert bool(await scans(url, recorded, LEADERBOARD)) == is_found, firsts


def test_walk_along_the_key_needs_a_limit_and_no_sorting() -> None:
    limited = "SELECT id FROM webhooks WHERE id > ? ORDER BY webhooks.id \n LIMIT ?"
    assert stops_at_its_limit(limited, ["SEARCH webhooks USING INTEGER PRIMARY KEY (rowid>?)"])
    assert not stops_at_its_limit(limited, ["SCAN webhooks", "USE TEMP B-TREE FOR ORDER BY"])
    assert not stops_at_its_limit("SELECT id FROM webhooks ORDER BY webhooks.id", ["SCAN webhooks"])
    walk = {"Node Type": "Index Scan", "Relation Name": "webhooks", "Index Name": "webhooks_pkey"}
    assert walks_to_its_limit({"Node Type": "Limit", "Plans": [walk]})
    assert not walks_to_its_limit({"Node Type": "Limit", "Plans": [{"Node Type": "Sort", "Plans": [walk]}]})
    assert not walks_to_its_limit({"Node Type": "Limit", "Plans": [walk | {"Node Type": "Seq Scan"}]})
    assert not walks_to_its_limit(walk)


# Pledges.

PARTNERS: Final = ("small", "new", "big")
PLEDGES: Final = {
    "donors": {"id": "'dnr_' || n", "partner": "'big'", "address_mac": "decode(md5(n::text), 'hex')"},
    "pledges": {
        "id": "'plg_' || lpad(n::text, 26, '0')", "drive_id": "'drv_old'", "partner": "'big'",
        "status": "CASE WHEN n % 1000 = 0 THEN 'refunded' ELSE 'paid' END", "reference": "'r' || n",
        "currency": "'USD'",
    },
    "words": {"pledge_id": "'plg_' || lpad(n::text, 26, '0')"},
    "payments": {
        "id": "'pay_' || n", "pledge_id": "'plg_' || lpad(n::text, 26, '0')", "status": "'captured'",
    },
    "idempotency": {"scope": "'big:pledges'", "key": "'k' || n", "made_at": "n"},
    "inbox": {"group": "'pledges'"} | RECENT,
}  # fmt: skip


@asynccontextmanager
async def pledges(folder: Path, url: str) -> AsyncIterator[Harness]:
    bus = SqliteBus(folder / "bus.db", synchronous="OFF")
    settings = PledgesSettings(
        data_dir=folder, internal_secret=SecretStr(SECRET), token_secret=SecretStr("t" * 20),
        database_url_pledges=url, database_synchronous="OFF",
    )  # fmt: skip
    service = pledges_app.compose(settings, bus)
    await service.start()
    try:
        yield Harness(folder, bus, service)
    finally:
        await service.close()
        await bus.close()


async def test_pledges_statements_scan_no_growing_table(tmp_path: Path, store: str) -> None:
    url = store or f"sqlite:///{tmp_path / 'pledges.db'}"
    database = Database(url, pledges_tables.MESSAGING_TABLES)
    await database.migrate(pledges_app.MIGRATIONS)
    await fill(url, pledges_tables.Table.metadata, ROWS, PLEDGES)
    with recording() as recorded:
        async with pledges(tmp_path, url) as stage:
            await _pledge_and_pay(stage)
        await idempotency.delete_expired(database)
    await database.close()
    await assert_no_scans(url, recorded, PLEDGES)


async def _pledge_and_pay(stage: Harness) -> None:
    await stage.drive()
    await stage.post("/v1/drives/winter/creators", {"slug": "abo", "name": "Abo"}, key="c")
    for _ in range(2):  # the second time every donor is known
        people = [
            a_pledge(donor={"email": f"d{n}@example.org"}, creator="abo", message="x") for n in range(80)
        ]
        replies = await asyncio.gather(
            *(stage.pledge(one, partner=PARTNERS[n % 3], key=f"key-{n}") for n, one in enumerate(people)),
            *(stage.pledge(one, partner=PARTNERS[n % 3]) for n, one in enumerate(people)),
        )
        assert {reply.status for reply in replies} == {201}
    made = [reply.json()["id"] for reply in replies]
    for query in ("", "drive=winter", "reference=r5", "status=refunded", "status=open", f"after={made[0]}"):
        for partner in PARTNERS:
            assert (await stage.read("/v1/pledges", query, partner=partner)).status == 200
    assert (await stage.post(f"/v1/pledges/{made[0]}/cancel", partner=PARTNERS[0])).status == 200
    for action in ("pause", "skip", "replay"):
        assert (await stage.post(f"/v1/drives/winter/alerts/{action}")).status == 200
    for path in ("pledges", "checkout-details", "words", "receipts"):
        await stage.post_internal(f"/internal/{path}", ids=made)
    async with stage.running_workers():
        money = (2500, 0, 0)
        await stage.publish(
            *(change(ids.new("pay"), 1, PaymentStatus.CAPTURED, pledge=each, money=money) for each in made)
        )
        await wait_until_consumed(stage)
    again = await stage.post("/v1/drives/winter/alerts/replay", {"pledge": made[1]})
    assert again.status == 200, again.body


# Payments.

PAYMENTS: Final = {
    "payments": {
        "id": "'pay_' || n", "pledge_id": "'plg_' || n", "drive_id": "'drv_old'", "nth": "0",
        "status": "'captured'", "intent": "'pi_' || n", "captured": "2500", "paid_currency": "'USD'",
        "currency": "'USD'", "amount": "2500", "captured_at": "n",
        "checkout": "'open'", "session_id": "'cs_' || n", "expires_at": "n",
    },
    "facts": {"id": "'pi_' || n", "kind": "'capture'", "intent": "'pi_' || n", "payment_id": "'pay_' || n"},
    "webhooks": {"event_id": "'evt_' || n", "state": "1", "received_at": NOW},
    "attempts": {
        "key": "'pay_' || n || '.1'", "payment_id": "'pay_' || n", "state": "'opened'", "done_at": NOW,
    },
    "refunds": {
        "id": "'rfd_' || n", "payment_id": "'pay_' || n", "state": "'sent'", "settled": "true",
        "next_try_at": "n",
    },
    "postings": {
        "cause": "'pi_' || n || '#1'", "payment_id": "'pay_' || n", "drive_id": "'drv_old'",
        "currency": "'USD'", "units": "2500",
    },
    "matching_pools": {"id": "'mch_' || n", "drive_id": "'drv_' || n", "cap": "1000", "used": "0"},
    "matching_allocations": {"payment_id": "'pay_' || n", "pool_id": "'mch_' || n"},
    "matching_counted_before": {"payment_id": "'pay_' || n"},
    "balance_transactions": {
        "id": "'txn_' || n", "intent": "'pi_' || n", "state": "'posted'", "payment_id": "'pay_' || n",
        "payout_id": "'po_' || n", "next_try_at": "n", "currency": "'USD'",
    },
    "payouts": {
        "id": "'po_' || n", "currency": "'USD'", "difference": "0", "next_try_at": "NULL",
        "created_at": "n",
    },
    "idempotency": {"scope": "'big:refunds'", "key": "'k' || n", "made_at": "n"},
    "inbox": {"group": "'payments'"} | RECENT,
}  # fmt: skip


async def test_payments_statements_scan_no_growing_table(tmp_path: Path, store: str) -> None:
    url = store or f"sqlite:///{tmp_path / 'payments.db'}"
    database = Database(url, payments_tables.MESSAGING_TABLES)
    await database.migrate(payments_app.MIGRATIONS)
    await fill(url, payments_tables.Table.metadata, ROWS, PAYMENTS)
    with recording() as recorded:
        async with payments_stage.running(
            tmp_path, database_url_payments=store, stripe_settlement_s=0.2
        ) as stage:
            await _pay_and_refund(stage)
            await _pay_out(stage, database)
        await _prune_payments(database)
    await database.close()
    await assert_no_scans(url, recorded, PAYMENTS, WALKED)


async def _pay_out(stage: payments_stage.Harness, database: Database) -> None:
    """A payout of the account, read until its lines are compared."""
    async with stage.http.post(f"{stage.sandbox}/_sandbox/payouts", json={}) as answer:
        (payout,) = (await answer.json())["data"]
    caller = sign_caller(payments_stage.SECRET, partner="default", scopes=("admin",))

    async def compared() -> bool:
        found = (await stage.ask("GET", "/v1/payouts", **caller)).json()["data"]
        return any(each["id"] == payout["id"] and each["reconciled"] for each in found)

    await until(compared)
    client = InProcessServiceClient(stage.service.app)
    for query in ("limit=2", "after=po_7"):
        page = await client.request("GET", "/v1/payouts", headers=caller, query=query)
        assert page.status == 200, page.body
    async with database.reading() as session:
        assert await fee_and_payout(session, ["pay_1", "pay_2"])


async def _prune_payments(database: Database) -> None:
    """Every step of the hourly pruning, which a service that stops early may not have reached."""
    now = datetime.now(UTC)
    await idempotency.delete_expired(database)
    await inbox.delete_expired(database)
    await prune_texts(database, now - timedelta(days=14), 500)
    await prune_applied(database, now - timedelta(days=35), 500)
    await prune_attempts(database, now)


async def _pay_and_refund(stage: payments_stage.Harness) -> None:
    drive = payments_stage.a_drive(partner="default")
    given = [await stage.donate(drive)]
    await _match(stage)
    given += [await stage.donate(drive) for _ in range(2)]
    disputed = await stage.donate(drive, card="4000000000000259")
    refused, cancelled = payments_stage.a_pledge(drive), payments_stage.a_pledge(drive)
    stage.pledges.details[refused.pledge_id] = {"email": "not an address"}
    await stage.publish_events(refused, cancelled)
    for pledge in (refused, cancelled):
        await stage.opened(pledge.pledge_id)
    fields = cancelled.model_dump() | {"version": 2, "status": PledgeStatus.CANCELLED}
    await stage.publish_events(PledgeChanged(**fields))
    for paid in given:
        await stage.status(paid, "paid")
    await stage.status(disputed, "disputed")
    await stage.faults(error_after_rate=1)
    assert (await stage.refund(given[0], "r0")).status == 201
    await stage.faults()
    assert (await stage.refund(given[1], "r1")).status == 201
    assert (await stage.refund(given[1], "r1")).headers["idempotency-replayed"]
    await stage.status(given[0], "refunded")
    await stage.drained()
    await _read_and_release(stage, drive.drive_id, drive.slug)


async def _read_and_release(stage: payments_stage.Harness, drive: str, slug: str) -> None:
    """What a treasurer reads, and decides about held money."""
    key = sign_caller(payments_stage.SECRET, partner="default", scopes=("admin",))
    owner = sign_caller(payments_stage.SECRET, partner="owner", scopes=("ledger",))
    other = payments_stage.a_drive(slug="other", partner="owner")
    # Its drive is not announced: the money is held.
    unknown = payments_stage.a_pledge(payments_stage.a_drive())
    await stage.publish_events(other, unknown)
    await stage.pay(await stage.opened(unknown.pledge_id))
    await stage.status(unknown.pledge_id, "paid")
    for which in (f"drive={slug}", f"drive={slug}&after=9999999", "", "after=9999999"):
        for query in ("", "held=true", "status=refunded", "status=captured", "held=true&status=disputed"):
            for caller in (key, owner) if "drive" not in which else (key,):
                reply = await stage.get("/v1/payments", f"{which}&{query}&limit=5", caller)
                assert reply.status == 200, reply.body
    (held,) = (await stage.get("/v1/payments", "held=true", key)).json()["data"]
    path = f"/v1/payments/{held['id']}"
    for action, body in (("release", {"note": "x", "drive": "other"}), ("refunds", {})):
        reply = await stage.ask("POST", f"{path}/{action}", body, **key, **{"idempotency-key": action})
        assert reply.status in (200, 201), reply.body
    for read in (path, *(f"/v1/drives/{drive}/{each}" for each in ("ledger", "trial-balance", "statement"))):
        assert (await stage.get(read, "", key)).status == 200
    closed = {"version": 2, "state": DriveState.CLOSED}
    await stage.publish_events(other.model_copy(update=closed))
    await stage.drained()
    assert (await stage.get(f"/v1/drives/{other.drive_id}/statement", "", key)).status == 200


async def _match(stage: payments_stage.Harness) -> None:
    caller = sign_caller(payments_stage.SECRET, partner="default", scopes=("drives",))
    pools = "/v1/drives/winter/matching-pools"
    body = {"sponsor": "Acme", "cap": {"currency": "USD", "value": "60.00"}, "ratio": "1.00"}
    made = [await stage.ask("POST", pools, body, **caller) for _ in range(2)]
    assert [reply.status for reply in made] == [201, 201]
    ended = await stage.ask("POST", f"/v1/matching-pools/{made[0].json()['id']}/end", **caller)
    listed = await stage.ask("GET", pools, **caller)
    assert (ended.status, len(listed.json()["data"])) == (200, 2)


# Leaderboard.

LEADERBOARD: Final = {
    "payments": {
        "payment_id": "'pay_' || n", "drive_id": f"'{builders.DRIVE}'", "pledge_id": "'plg_' || n",
        "donor_id": "'dnr_' || n", "donor_key": "'dnr_' || n", "source_key": "'s' || (n % 50)",
        "creator_id": "'crt_' || (n % 10000)", "number": "n + 1000000", "ranked_version": "1", "version": "1",
        "counted": "true", "currency": "'USD'", "captured": "2500", "refunded": "0", "disputed": "0",
        "captured_at": f"{NOW}::bigint - 50000::bigint * n",
    },
    "pledges": {"pledge_id": "'plg_' || n", "drive_id": "'drv_old'"},
    "donors": {
        "drive_id": f"'{builders.DRIVE}'", "donor_id": "'dnr_' || n", "raised": "n % 1000",
        "day_raised": "n % 1000", "hour_raised": "n % 10",
    },
    "sources": {"drive_id": "'drv_' || (n % 1000)", "source": "'s' || n", "raised": "n", "hour_raised": "n"},
    "superseded": {"drive_id": "'drv_' || n", "payment_id": "'pay_' || n"},
    "creators": {
        "creator_id": "'crt_' || n", "drive_id": "'drv_' || (n % 100)", "raised": "n",
        "team": "'t' || (n % 50)",
    },
    "drive_log": {
        "drive_id": "'drv_old'", "epoch": "1", "sequence": "n", "type": "'donation.counted'",
        "payment_id": "'pay_' || n", "pledge_id": "'plg_' || n",
    },
    "words": {"pledge_id": "'plg_' || n"},
    "log_trees": {"drive_id": "'drv_' || n", "epoch": "1", "tiled": "256"},
    "log_tiles": {"drive_id": "'drv_old'", "epoch": "1", "level": "0", "number": "n"},
    "logged_gifts": {"pledge_id": "'plg_' || n", "drive_id": "'drv_old'", "epoch": "1", "sequence": "n"},
    "matching_pools": {"pool_id": "'mch_' || n", "drive_id": "'drv_' || n", "cap": "1000", "used": "0"},
    "inbox": {"group": "'leaderboard'"} | RECENT,
}  # fmt: skip


async def test_leaderboard_statements_scan_no_growing_table(tmp_path: Path, store: str) -> None:
    url = store or f"sqlite:///{tmp_path / 'leaderboard.db'}"
    database = Database(url, leaderboard_tables.MESSAGING_TABLES)
    await database.migrate(leaderboard_app.MIGRATIONS)
    await database.close()
    await fill(url, leaderboard_tables.Table.metadata, ROWS, LEADERBOARD)
    with recording() as recorded:
        async with builders.running(tmp_path, database_url_leaderboard=store) as leaderboard:
            await _tally_and_read(leaderboard)
            await _verify_log(leaderboard)
        assert any("AS pins" in statement for statement in recorded.statements)
        database = Database(url, leaderboard_tables.MESSAGING_TABLES)
        await _slide_windows(database)
        await database.close()
    await assert_no_scans(url, recorded, LEADERBOARD)


async def _tally_and_read(leaderboard: builders.Leaderboard) -> None:
    numbers = range(60)
    drive = f"/v1/drives/{builders.DRIVE}"
    await leaderboard.publish(
        builders.drive(), *(builders.creator(f"crt_x{n}", f"N{n}", team="Red") for n in numbers)
    )
    await leaderboard.publish(*(builders.pledge(f"plg_x{n}", creator_id=f"crt_x{n}") for n in numbers))
    for version, refunded in ((1, 0), (2, 500)):
        await leaderboard.publish(
            *(builders.pool(f"mch_x{n}", 9_000 - refunded, version) for n in range(25)),
            *(
                builders.payment(
                    f"pay_x{n}", refunded=refunded, version=version, pledge_id=f"plg_x{n}",
                    creator_id=f"crt_x{n}", donor_id=f"dnr_x{n}", source=Source(platform="youtube"),
                    captured_at=datetime.now(UTC) - timedelta(minutes=30),  # many others are newer
                )
                for n in numbers
            )
        )  # fmt: skip
        await until(leaderboard.is_drained)
        # Sums the first states, so that the second ones replace what was summed.
        assert (await leaderboard.get(f"{drive}/leaderboards/donors", "")).status == 200
    around = {"creators": "crt_x5", "donors": "dnr_x5", "teams": "Red", "sources": "youtube"}
    for board, key in around.items():
        for window in ("all", "24h", "1h"):
            for query in (f"window={window}", f"window={window}&around={key}"):
                assert (await leaderboard.get(f"{drive}/leaderboards/{board}", query)).status == 200
    donations = await leaderboard.get(f"{drive}/donations", "limit=10")
    for path, query in (
        (f"{drive}/events", "after=3"),
        (f"{drive}/donations", f"after={donations.json()['next']}"),
    ):
        assert (await leaderboard.get(path, query)).status == 200
    await _put_on_screen(leaderboard)
    await asyncio.sleep(1.2)  # a heartbeat, and the figures of the last minute


async def _verify_log(leaderboard: builders.Leaderboard) -> None:
    """What the gateway and verifiers ask of the log's tree, of which tiles are full."""
    gifts = (
        builders.payment(f"pay_y{n}", pledge_id=f"plg_y{n}", captured_at=datetime.now(UTC))
        for n in range(300)
    )
    await leaderboard.publish(*gifts)
    await until(leaderboard.is_drained)
    log = {"drive": builders.DRIVE, "epoch": None}

    async def tiled() -> bool:
        reply = await leaderboard.post("/internal/log/tile", log | {"level": 0, "number": 0, "width": 256})
        return reply.status == 200

    await until(tiled)
    for path, asked in (
        ("head", {"since": None}),
        ("head", {"since": 100}),
        ("tile", {"level": None, "number": 0, "width": 256}),
        ("tile", {"level": 0, "number": 1, "width": 7}),
        ("gift", {"pledge": "plg_y5", "size": 300}),
        ("gift", {"pledge": "plg_y299", "size": 300}),
        ("gift", {"pledge": "plg_none", "size": 300}),
    ):
        reply = await leaderboard.post(f"/internal/log/{path}", log | asked)
        assert reply.status == 200, (path, asked, reply.body)


async def _put_on_screen(leaderboard: builders.Leaderboard) -> None:
    """Pin messages, and show a donation again."""
    now, drive = datetime.now(UTC), DriveId(builders.DRIVE)
    pinned = [
        MessageModerated(
            pledge_id=f"plg_x{n}", drive_id=drive, version=1, state=MessageState.PINNED, moderated_at=now
        )
        for n in range(30)
    ]
    replay = AlertControl(version=1, at=now, pledge_id=PledgeId("plg_x5"))
    await leaderboard.publish(
        *pinned, AlertsControlled(drive_id=drive, version=1, paused=False, skip=None, replay=replay)
    )
    await until(leaderboard.is_drained)


async def _slide_windows(database: Database) -> None:
    """Summing after an hour, when payments leave a window, and summing anew."""
    later = datetime.now(UTC) + timedelta(hours=1)
    async with database.reading() as session:
        await session.run_sync(lambda inner: standings.find_due(inner, later))
    async with database.transaction() as session:
        await session.run_sync(starting_anew.have_summed_again)
        await session.run_sync(lambda inner: standings.bring_up_to_date(inner, builders.DRIVE, later))
        again = update(leaderboard_tables.drives).where(
            leaderboard_tables.drives.c.drive_id == builders.DRIVE
        )
        await session.execute(again.values(summed_number=leaderboard_tables.NEVER_SUMMED))
        await session.run_sync(lambda inner: standings.bring_up_to_date(inner, builders.DRIVE, later))


# Notify.

NOTIFY: Final = {
    "receipts": {"payment_id": "'pay_' || n", "status": "'sent'"},
    "inbox": {"group": "'notify'"} | RECENT,
}


async def test_notify_statements_scan_no_growing_table(tmp_path: Path, store: str) -> None:
    url = store or f"sqlite:///{tmp_path / 'notify.db'}"
    database = Database(url, notify_tables.MESSAGING_TABLES)
    await database.migrate(notify_app.MIGRATIONS)
    await database.close()
    await fill(url, notify_tables.Table.metadata, ROWS, NOTIFY)
    stage = notify_stage.Harness(tmp_path, database_url_notify=store)
    with recording() as recorded:
        async with stage.running():
            payment = ids.new("pay")
            await stage.say(notify_stage.counted(payment, pledge=stage.donor()))
            await until(lambda: _receipt_is_sent(stage, payment))
    await assert_no_scans(url, recorded, NOTIFY)


async def _receipt_is_sent(stage: notify_stage.Harness, payment: str) -> bool:
    return payment in stage.files()
