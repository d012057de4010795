"""The effect of each event on a drive and its log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select, update

from backbone.contracts import DriveLogged, DriveState, PledgeStatus, decode
from backbone.database.columns import microseconds
from backbone.database.database import Database
from backbone.database.transaction import SyncTransaction
from backbone.ids import CreatorId, DriveId, PaymentId
from services.leaderboard import queries, sequencer, totals
from services.leaderboard.logged_rows import LoggedRow, encode_logged
from services.leaderboard.sequencer import CurrencyChanged, DriveGone
from services.leaderboard.tables import MESSAGING_TABLES, clearings, drive_log, drives, payments
from tests.leaderboard.builders import (
    DRIVE,
    NOON,
    creator,
    drive,
    drive_row,
    handle_events,
    head_of,
    log_rows,
    milestone,
    payment,
    pledge,
    ranks,
    ranks_around,
    usd,
)


async def logged_rows(database: Database, drive_id: str = DRIVE) -> list[tuple[str, str | None, str]]:
    """(type, amount, raised after) of each row of the log."""
    return [
        (row["type"], row["amount"] and row["amount"]["value"], row["raised_after"]["value"])
        for row in await log_rows(database, drive_id)
    ]


async def flaw_in(database: Database) -> Any:
    head = await head_of(database)
    async with database.reading() as session:
        return await queries.verify_log(session, head)


async def test_donation_refund_and_dispute_are_logged_and_counted(database: Database) -> None:
    await handle_events(database, drive())
    await handle_events(database, payment("pay_1", 5000))
    await handle_events(database, payment("pay_1", 5000, refunded=2000, version=2))
    await handle_events(database, payment("pay_1", 5000, refunded=0, version=3))
    await handle_events(database, payment("pay_1", 5000, disputed=5000, version=4))
    assert (await drive_row(database)).donations == 0
    await handle_events(database, payment("pay_1", 5000, version=5))
    assert await logged_rows(database) == [
        ("drive.opened", None, "0.00"),
        ("donation.counted", "50.00", "50.00"),
        ("donation.refunded", "20.00", "30.00"),
        ("donation.refund_failed", "20.00", "50.00"),
        ("donation.disputed", "50.00", "0.00"),
        ("donation.dispute_won", "50.00", "50.00"),
    ]
    row = await drive_row(database)
    assert (row.captured, row.refunded, row.disputed, row.donations, row.donors) == (5000, 0, 0, 1, 1)
    assert await flaw_in(database) is None


async def test_payment_consumed_before_its_drive_and_creator_is_counted(database: Database) -> None:
    await handle_events(database, payment("pay_1", 5000, creator_id="crt_a"))
    row = await drive_row(database)
    assert (row.version, row.slug, row.currency, row.captured) == (0, None, "USD", 5000)
    await handle_events(database, drive(), creator("crt_a", "Noor"))
    leaders = await ranks(database)
    assert [(one["name"], one["raised"]["value"]) for one in leaders] == [("Noor", "50.00")]
    assert (await drive_row(database)).captured == 5000


@pytest.mark.parametrize("amount", [None, 2500])
def test_logged_row_is_announced_as_the_event_with_its_values(amount: int | None) -> None:
    about = (PaymentId("pay_1"), None, CreatorId('crt_"é'))
    row = LoggedRow(DRIVE, 1, 7, "donation.counted", microseconds(NOON), *about, amount, -300, "USD", "ab")
    event = decode(DriveLogged.wire_name, encode_logged(row))
    assert isinstance(event, DriveLogged)
    assert event == DriveLogged(
        drive_id=DriveId(DRIVE), epoch=1, sequence=7, type="donation.counted", at=NOON,
        payment_id=about[0], pledge_id=None, creator_id=about[2],
        amount=None if amount is None else usd(amount), raised_after=usd(-300), hash="ab",
    )  # fmt: skip
    assert event.to_bytes() == encode_logged(row)


async def test_held_money_appears_only_in_books_and_held(database: Database) -> None:
    await handle_events(database, drive(), payment("pay_1", 5000, held=True), payment("pay_2", 100))
    await handle_events(database, payment("pay_3", 700, held=True, currency="EUR"))
    row = await drive_row(database)
    assert (row.captured, row.donations) == (100, 1)
    async with database.reading() as session:
        assert await queries.books(session) == {"EUR": "7.00", "USD": "51.00"}
        assert await queries.recounted_books(session) == {"EUR": "7.00", "USD": "51.00"}
    await handle_events(database, payment("pay_1", 5000, version=2))
    row = await drive_row(database)
    assert (row.captured, row.donations) == (5100, 2)
    assert (await logged_rows(database))[-1] == ("donation.counted", "50.00", "51.00")


OTHER = "drv_01bbbbbbbbbbbbbbbbbbbbbbbb"
UNKNOWN = "drv_01zzzzzzzzzzzzzzzzzzzzzzzz"


async def test_books_are_right_after_a_payment_leaves_an_unknown_drive_and_is_refunded(
    database: Database,
) -> None:
    await handle_events(database, drive())
    await handle_events(database, payment("pay_1", 5000, drive_id=UNKNOWN, held=True))
    await handle_events(database, payment("pay_1", 5000, version=2))
    await handle_events(database, payment("pay_1", 5000, refunded=1000, version=3))
    async with database.reading() as session:
        rows = await session.execute(select(clearings.c.drive_id, clearings.c.net, clearings.c.held))
        assert sorted(map(tuple, rows)) == [(DRIVE, 4000, 0), (UNKNOWN, 0, 0)]
        assert await queries.differences(session) == []
    assert await logged_rows(database) == [
        ("drive.opened", None, "0.00"),
        ("donation.counted", "50.00", "50.00"),
        ("donation.refunded", "10.00", "40.00"),
    ]


async def test_payment_that_changes_drive_is_removed_from_one_log_and_counted_in_the_other(
    database: Database,
) -> None:
    about: dict[str, Any] = {"donor_id": "dnr_a", "creator_id": "crt_a"}
    await handle_events(database, drive(), drive(drive_id=OTHER, slug="spring"), creator("crt_a"))
    await handle_events(database, payment("pay_1", 5000, refunded=1000, **about), payment("pay_2", 700))
    await handle_events(database, payment("pay_1", 5000, refunded=1000, version=2, drive_id=OTHER, **about))
    assert (await logged_rows(database))[-1] == ("donation.refunded", "40.00", "7.00")
    assert await logged_rows(database, OTHER) == [
        ("drive.opened", None, "0.00"),
        ("donation.counted", "50.00", "50.00"),
        ("donation.refunded", "10.00", "40.00"),
    ]
    left, joined = await drive_row(database), await drive_row(database, OTHER)
    assert (left.captured, left.refunded, left.donations, left.donors) == (700, 0, 1, 1)
    assert (joined.captured, joined.refunded, joined.donations, joined.donors) == (5000, 1000, 1, 1)
    async with database.reading() as session:
        assert await queries.differences(session) == []


async def test_payment_in_another_drive_than_its_pledge_pays_the_pledge(database: Database) -> None:
    await handle_events(database, drive(), pledge("plg_1", 2500))
    await handle_events(database, payment("pay_1", 2500, drive_id=UNKNOWN, held=True, pledge_id="plg_1"))
    assert (await drive_row(database)).pledged == 0
    await handle_events(database, payment("pay_1", 2500, version=2, pledge_id="plg_1"))
    async with database.reading() as session:
        assert await queries.differences(session) == []


async def test_payment_released_to_another_drive_names_neither_pledge_nor_donor_there(
    database: Database,
) -> None:
    await handle_events(database, drive(), drive(drive_id=OTHER, slug="spring"), pledge("plg_1", 2500))
    given: dict[str, Any] = {"pledge_id": "plg_1", "donor_id": "dnr_a"}
    await handle_events(database, payment("pay_1", 5000, held=True, **given))
    released = payment("pay_1", 5000, version=2, drive_id=OTHER, in_other_drive=True, **given)
    await handle_events(database, released)
    await handle_events(database, payment("pay_1", 5000, 100, version=3, **given | released.model_dump(
        include={"drive_id", "in_other_drive"}
    )))  # fmt: skip
    async with database.reading() as session:
        logged = (await session.execute(select(drive_log).where(drive_log.c.drive_id == OTHER))).all()
        (row,) = (await session.execute(select(payments))).all()
        assert await queries.differences(session) == []
    assert [(each.type, each.pledge_id) for each in logged] == [
        ("drive.opened", None), ("donation.counted", None), ("donation.refunded", None),
    ]  # fmt: skip
    assert (row.drive_id, row.pledge_id, row.counted) == (OTHER, None, True)
    assert row.donor_key not in (None, "dnr_a")  # an alias, of which no name is known
    assert (await drive_row(database)).pledged == 0
    assert (await drive_row(database, OTHER)).captured == 5000


async def test_increased_capture_is_not_a_second_donation(database: Database) -> None:
    await handle_events(database, drive(), payment("pay_1", 5000, captured_at=NOON))
    await handle_events(database, payment("pay_1", 8000, version=2, captured_at=NOON))
    assert await logged_rows(database) == [
        ("drive.opened", None, "0.00"),
        ("donation.counted", "50.00", "50.00"),
        ("donation.corrected", "30.00", "80.00"),
    ]
    row = await drive_row(database)
    assert (row.captured, row.donations, row.donors) == (8000, 1, 1)
    async with database.reading() as session:
        assert await queries.differences(session) == []


async def test_milestone_is_not_reached_by_money_refunded_before_it_was_consumed(
    database: Database,
) -> None:
    await handle_events(database, drive(milestones=[milestone(3000), milestone(5000)]))
    await handle_events(database, payment("pay_1", 5000, refunded=2000))
    reached = [row for row in await logged_rows(database) if row[0] == "milestone.reached"]
    assert reached == [("milestone.reached", "30.00", "30.00")]


async def test_raised_may_be_negative(database: Database) -> None:
    await handle_events(database, drive(), payment("pay_1", 5000, refunded=2000, disputed=5000))
    assert (await logged_rows(database))[-1] == ("donation.disputed", "50.00", "-20.00")
    row = await drive_row(database)
    assert (row.captured, row.refunded, row.disputed, row.donations, row.donors) == (5000, 2000, 5000, 0, 0)
    async with database.reading() as session:
        assert await queries.books(session) == {"USD": "-20.00"}
        assert await queries.differences(session) == []


async def test_payment_in_another_currency_is_in_the_books_and_not_in_the_totals(database: Database) -> None:
    await handle_events(database, drive(), payment("pay_1", 5000), payment("pay_2", 700, currency="EUR"))
    row = await drive_row(database)
    assert (row.captured, row.donations, row.sequence) == (5000, 1, 2)
    async with database.reading() as session:
        assert await queries.books(session) == {"EUR": "7.00", "USD": "50.00"}
        assert await queries.differences(session) == []


async def test_creator_has_the_newest_name(database: Database) -> None:
    await handle_events(
        database, drive(), creator("crt_a", "New", version=2), payment("pay_1", creator_id="crt_a")
    )
    await handle_events(database, creator("crt_a", "Old", version=1))
    assert [one["name"] for one in await ranks(database)] == ["New"]


async def test_placeholder_drive_takes_its_currency_from_counted_money(database: Database) -> None:
    await handle_events(database, payment("pay_1", 700, held=True, currency="EUR"))
    assert (await drive_row(database)).currency is None
    await handle_events(database, payment("pay_2", 100))
    await handle_events(database, drive())
    row = await drive_row(database)
    assert (row.currency, row.captured) == ("USD", 100)


async def test_change_of_a_drives_currency_raises(database: Database) -> None:
    await handle_events(database, drive())
    with pytest.raises(CurrencyChanged):
        await handle_events(database, drive(2, currency="EUR"))


async def test_repeated_or_older_state_changes_nothing(database: Database) -> None:
    await handle_events(database, drive(2), payment("pay_1", 5000, refunded=5000, version=3))
    before = await drive_row(database)
    await handle_events(database, drive(1, DriveState.DRAFT), payment("pay_1", 5000, version=2))
    await handle_events(database, drive(2), payment("pay_1", 5000, refunded=5000, version=3))
    assert await drive_row(database) == before


async def test_rows_of_a_batch_are_in_the_order_of_its_events(database: Database) -> None:
    await handle_events(database, drive())
    await handle_events(database, payment("pay_b", 200), payment("pay_a", 100), payment("pay_c", 300))
    rows = await log_rows(database)
    assert [row["payment"] for row in rows] == [None, "pay_b", "pay_a", "pay_c"]
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4]


async def test_each_drive_has_its_own_log(database: Database) -> None:
    other = "drv_01bbbbbbbbbbbbbbbbbbbbbbbb"
    await handle_events(database, drive(), drive(drive_id=other, slug="spring"))
    await handle_events(
        database, payment("pay_1", 100), payment("pay_2", 200, drive_id=other), payment("pay_3", 300)
    )
    assert [row["sequence"] for row in await log_rows(database)] == [1, 2, 3]
    assert [row["payment"] for row in await log_rows(database, other)] == [None, "pay_2"]


async def test_milestone_is_reached_once(database: Database) -> None:
    await handle_events(database, drive(milestones=[milestone(3000, "all"), milestone(1000, "some")]))
    await handle_events(database, payment("pay_1", 1000))
    await handle_events(database, payment("pay_1", 1000, refunded=1000, version=2))
    await handle_events(database, payment("pay_2", 2500))
    await handle_events(database, payment("pay_3", 2500), payment("pay_4", 2500))
    reached = [row for row in await logged_rows(database) if row[0] == "milestone.reached"]
    assert reached == [("milestone.reached", "10.00", "10.00"), ("milestone.reached", "30.00", "50.00")]
    titles = [(one["title"], one["reached_at"]) for one in (await drive_row(database)).milestones]
    assert [title for title, at in titles if at] == ["some", "all"]


async def test_milestone_that_was_removed_and_comes_back_is_not_reached_again(database: Database) -> None:
    both = [milestone(1000), milestone(3000)]
    await handle_events(database, drive(milestones=both), payment("pay_1", 1500, captured_at=NOON))
    await handle_events(database, drive(2, milestones=both[1:]), payment("pay_2", 100))
    shown = await shown_milestones(database)
    assert [(one["amount"]["value"], one["reached_at"]) for one in shown] == [("30.00", None)]
    await handle_events(database, drive(3, milestones=both), payment("pay_3", 100))
    reached = [row for row in await logged_rows(database) if row[0] == "milestone.reached"]
    assert reached == [("milestone.reached", "10.00", "15.00")]
    assert [one["reached_at"] for one in await shown_milestones(database)] == [
        "2022-01-07T12:00:00.000Z",
        None,
    ]


async def test_milestone_is_not_reached_before_a_lower_one(database: Database) -> None:
    await handle_events(database, drive(milestones=[milestone(1000), milestone(3000)]))
    later, earlier = NOON + timedelta(seconds=5), NOON
    await handle_events(database, payment("pay_1", 1500, captured_at=later))
    await handle_events(database, payment("pay_2", 1500, captured_at=earlier))
    reached = [one["reached_at"] for one in await shown_milestones(database)]
    assert reached == ["2022-01-07T12:00:05.000Z"] * 2


async def shown_milestones(database: Database) -> list[dict[str, Any]]:
    async with database.reading() as session:
        (found,) = await session.run_sync(
            lambda inner: totals.read_figures(inner, [DRIVE], lambda _row: True, NOON)
        )
    milestones: list[dict[str, Any]] = found.totals()["milestones"]
    return milestones


async def test_milestone_added_after_its_amount_was_raised_is_reached_immediately(database: Database) -> None:
    await handle_events(database, payment("pay_1", 5000))
    await handle_events(database, drive(milestones=[milestone(1000)]))
    assert [row[0] for row in await logged_rows(database)] == [
        "donation.counted",
        "drive.opened",
        "milestone.reached",
    ]


async def test_every_state_change_of_a_drive_is_logged(database: Database) -> None:
    states = [DriveState.DRAFT, DriveState.LIVE, DriveState.PAUSED, DriveState.LIVE, DriveState.CLOSED]
    await handle_events(database, *(drive(version, state) for version, state in enumerate(states, 1)))
    assert [row[0] for row in await logged_rows(database)] == [
        "drive.opened",
        "drive.paused",
        "drive.resumed",
        "drive.closed",
    ]


async def test_donors_with_a_net_above_zero_are_counted(database: Database) -> None:
    await handle_events(
        database,
        drive(),
        payment("pay_1", 100, donor_id="dnr_a"),
        payment("pay_2", 100, donor_id="dnr_a"),
        payment("pay_3", 100),
        payment("pay_4", 100),
    )
    assert (await drive_row(database)).donors == 3
    await handle_events(database, payment("pay_1", 100, refunded=100, donor_id="dnr_a", version=2))
    assert (await drive_row(database)).donors == 3
    await handle_events(database, payment("pay_2", 100, refunded=100, donor_id="dnr_a", version=2))
    await handle_events(database, payment("pay_3", 100, refunded=100, version=2))
    assert (await drive_row(database)).donors == 1


async def test_pledged_is_the_sum_of_open_and_unpaid_pledges(database: Database) -> None:
    await handle_events(
        database, drive(), pledge("plg_1", 1000), pledge("plg_2", 2000), pledge("plg_3", 4000)
    )
    assert (await drive_row(database)).pledged == 7000
    await handle_events(database, payment("pay_1", 1000, pledge_id="plg_1"))
    assert (await drive_row(database)).pledged == 6000
    await handle_events(database, pledge("plg_1", 1000, PledgeStatus.PAID, version=2))
    assert (await drive_row(database)).pledged == 6000
    await handle_events(database, pledge("plg_2", 2000, PledgeStatus.LAPSED, version=2))
    assert (await drive_row(database)).pledged == 4000
    await handle_events(database, payment("pay_4", 500, pledge_id="plg_4"))
    await handle_events(database, pledge("plg_4", 500))
    assert (await drive_row(database)).pledged == 4000


async def test_second_capture_on_a_pledge_is_another_donation(database: Database) -> None:
    await handle_events(database, drive(), pledge("plg_1", 1000), pledge("plg_2", 2000))
    await handle_events(database, payment("pay_1", 1000, pledge_id="plg_1"))
    await handle_events(database, payment("pay_2", 1000, pledge_id="plg_1"))
    row = await drive_row(database)
    assert (row.pledged, row.captured, row.donations) == (2000, 2000, 2)


async def test_pledge_raises_the_revision_and_not_the_sequence(database: Database) -> None:
    await handle_events(database, drive())
    before = await drive_row(database)
    await handle_events(database, pledge("plg_1", 1000))
    after = await drive_row(database)
    assert (after.sequence, after.revision) == (before.sequence, before.revision + 1)


async def test_every_logged_row_is_published_as_stored(database: Database) -> None:
    await handle_events(
        database, drive(milestones=[milestone(1000)]), payment("pay_1", 1000, creator_id="crt_a")
    )
    async with database.reading() as session:
        outbox = (
            await session.execute(select(MESSAGING_TABLES.outbox).order_by(MESSAGING_TABLES.outbox.c.number))
        ).all()
    announced = [decode(row.name, row.value) for row in outbox]
    assert [row.topic for row in outbox] == ["drive-log"] * 3
    assert [one.as_row() for one in announced if isinstance(one, DriveLogged)] == await log_rows(database)


async def test_failed_transaction_publishes_nothing(database: Database) -> None:
    await handle_events(database, drive())
    with pytest.raises(CurrencyChanged):
        await handle_events(database, payment("pay_1", 100), drive(2, currency="EUR"))
    assert [row[0] for row in await logged_rows(database)] == ["drive.opened"]


async def test_update_that_matches_no_row_raises(database: Database) -> None:
    await handle_events(database, drive())

    def lose_the_row(session: SyncTransaction) -> None:
        locked = sequencer.lock(session, [DRIVE])
        locked[DRIVE].add(captured=100)
        session.execute(delete(drives))
        with pytest.raises(DriveGone):
            sequencer.save(session, locked.values())

    async with database.transaction() as session:
        await session.run_sync(lose_the_row)


@pytest.mark.parametrize(
    "spoil",
    [
        update(drive_log).where(drive_log.c.sequence == 2).values(amount=1),
        update(drive_log).where(drive_log.c.sequence == 2).values(raised_after=1),
        delete(drive_log).where(drive_log.c.sequence == 2),
        delete(drive_log).where(drive_log.c.sequence == 4),
        update(drives).values(head_hash="0"),
    ],
)
async def test_changed_log_is_detected(database: Database, spoil: Any) -> None:
    await handle_events(database, drive(), *(payment(f"pay_{number}", 100) for number in range(3)))
    assert await flaw_in(database) is None
    async with database.transaction() as session:
        await session.execute(spoil)
    assert await flaw_in(database) is not None


@pytest.mark.parametrize("column", ["captured", "donations", "donors", "pledged"])
async def test_changed_sum_is_detected(database: Database, column: str) -> None:
    await handle_events(database, drive(), payment("pay_1", 100), pledge("plg_1", 700))
    async with database.transaction() as session:
        assert await queries.differences(session) == []
        await session.execute(update(drives).values({column: drives.c[column] + 1}))
        assert len(await queries.differences(session)) == 1


async def test_equal_amounts_are_ranked_by_who_reached_them_first(database: Database) -> None:
    await handle_events(database, drive(), *(creator(f"crt_{one}", one) for one in "abcd"))
    for gift in (
        payment("pay_0", 250, version=3, creator_id="crt_a"),
        payment("pay_1", 250, version=1, creator_id="crt_a"),  # the earlier capture, consumed later
        payment("pay_2", 500, version=2, creator_id="crt_b"),
    ):
        await handle_events(database, gift)
    await handle_events(database, payment("pay_3", 900, version=9, creator_id="crt_c"))
    ranking = await ranks(database)
    assert [(one["rank"], one["creator"]) for one in ranking] == [(1, "crt_c"), (2, "crt_b"), (3, "crt_a")]
    assert await ranks_around(database, "crt_a", 2) == ranking[1:]
    assert await ranks_around(database, "crt_d", 2) is None
    assert await ranks_around(database, "crt_x", 2) is None


async def test_donation_credited_to_another_creator_raises_the_revision(database: Database) -> None:
    about: dict[str, Any] = {"donor_id": "dnr_a", "captured_at": NOON}
    await handle_events(database, drive(), creator("crt_a", "a"), creator("crt_b", "b"))
    await handle_events(database, payment("pay_1", 500, creator_id="crt_a", **about))
    before = await drive_row(database)
    await handle_events(database, payment("pay_1", 500, creator_id="crt_b", version=2, **about))
    after = await drive_row(database)
    assert [one["creator"] for one in await ranks(database)] == ["crt_b"]
    assert (after.sequence, after.revision) == (before.sequence, before.revision + 1)


async def test_reached_at_follows_from_captures_and_not_from_later_events(
    database: Database,
) -> None:
    first, later = NOON, NOON + timedelta(seconds=5)
    await handle_events(database, drive(), creator("crt_a", "a"), creator("crt_b", "b"))
    await handle_events(database, payment("pay_2", 500, creator_id="crt_b", captured_at=later))
    await handle_events(database, payment("pay_1", 500, creator_id="crt_a", captured_at=first))
    # A dispute won long after does not change the order, and neither does a refunded donation.
    await handle_events(
        database, payment("pay_1", 500, disputed=500, version=7, creator_id="crt_a", captured_at=first)
    )
    await handle_events(database, payment("pay_1", 500, version=9, creator_id="crt_a", captured_at=first))
    gone = NOON + timedelta(seconds=9)
    await handle_events(database, payment("pay_3", 100, creator_id="crt_a", captured_at=gone))
    await handle_events(
        database, payment("pay_3", 100, refunded=100, version=2, creator_id="crt_a", captured_at=gone)
    )
    assert [one["creator"] for one in await ranks(database)] == ["crt_a", "crt_b"]


async def test_offline_money_counts_in_a_sum_of_its_own_and_leaves_it_when_reversed(
    database: Database,
) -> None:
    await handle_events(database, drive(), creator("crt_a"), payment("pay_1", 700))
    gift: dict[str, Any] = {"creator_id": "crt_a", "offline": True}
    await handle_events(database, payment("pay_2", 5000, **gift))
    row = await drive_row(database)
    assert (row.captured, row.offline, row.donations, row.donors) == (700, 5000, 2, 2)
    assert [(one["creator"], one["raised"]["value"]) for one in await ranks(database)] == [("crt_a", "50.00")]
    async with database.reading() as session:
        assert await queries.books(session) == {"USD": "7.00"}
        assert await queries.differences(session) == []
    await handle_events(database, payment("pay_2", 5000, refunded=5000, version=2, **gift))
    row = await drive_row(database)
    assert (row.captured, row.refunded, row.offline, row.donations, row.donors) == (700, 0, 0, 1, 1)
    assert (await logged_rows(database))[1:] == [
        ("donation.counted", "7.00", "7.00"),
        ("donation.counted", "50.00", "57.00"),
        ("donation.refunded", "50.00", "7.00"),
    ]
    async with database.reading() as session:
        assert await queries.differences(session) == []
