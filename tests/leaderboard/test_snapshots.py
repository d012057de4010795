"""What is published of a drive, when, and how fresh it says it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backbone import ids
from backbone.bus.protocol import PARTITIONS, Partition, Subscription, key_of_partition, partition_of
from backbone.bus.sqlite import SqliteBus
from backbone.clock import FrozenClock, SystemClock
from backbone.contracts import DriveState, Event, Heartbeat, SnapshotTaken, decode
from backbone.database.database import Database
from services.leaderboard.display_texts import DisplayTexts
from services.leaderboard.freshness import INPUTS, ChangedDrives, Freshness
from services.leaderboard.snapshots import LOADED_INTERVAL_S, MIN_INTERVAL_S, REPUBLISH_PARTS, Snapshots
from tests.leaderboard.builders import (
    DRIVE,
    NOON,
    SECRET,
    FakePledges,
    Leaderboard,
    creator,
    drive,
    drive_row,
    handle_events,
    milestone,
    payment,
    pledge,
    running,
)
from tests.waiting import until


class SnapshotReader:
    """Everything on `snapshots`, as it comes."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self.snapshots: list[SnapshotTaken] = []
        self.heartbeats: list[Heartbeat] = []

    async def run(self) -> None:
        while True:
            for record in await self._subscription.fetch(100, 60):
                event = decode(record.name, record.value)
                if isinstance(event, SnapshotTaken):
                    self.snapshots.append(event)
                elif isinstance(event, Heartbeat):
                    self.heartbeats.append(event)

    @property
    def newest(self) -> SnapshotTaken | None:
        return max(self.snapshots, key=snapshot_version, default=None)

    async def sequence(self, sequence: int) -> SnapshotTaken:
        """The newest snapshot, once it is of this row of the log."""
        await until(lambda: self.newest is not None and self.newest.sequence >= sequence)
        assert self.newest is not None
        return self.newest

    async def showing(self, **figures: Any) -> SnapshotTaken:
        """The newest snapshot, once its totals have these values."""
        await until(
            lambda: (
                self.newest is not None
                and all(self.newest.totals[name] == value for name, value in figures.items())
            )
        )
        assert self.newest is not None
        return self.newest

    async def named(self, name: str) -> SnapshotTaken:
        """The newest snapshot, once its newest gift has this name."""
        await until(
            lambda: (
                self.newest is not None
                and [one["name"] for one in self.newest.totals["recent"]][:1] == [name]
            )
        )
        assert self.newest is not None
        return self.newest


def snapshot_version(snapshot: SnapshotTaken) -> tuple[int, int, int]:
    return snapshot.epoch, snapshot.sequence, snapshot.revision


@asynccontextmanager
async def reading_snapshots(leaderboard: Leaderboard) -> AsyncIterator[SnapshotReader]:
    reader = SnapshotReader(await leaderboard.bus.follow(["snapshots"], "beginning"))
    task = asyncio.create_task(reader.run())
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.wait([task])


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


async def mark_inputs(leaderboard: Leaderboard, pledges_at: datetime, payments_at: datetime) -> None:
    await leaderboard.bus.publish_watermarks("pledges", pledges_at, range(PARTITIONS))
    await leaderboard.bus.publish_watermarks("payments", payments_at, range(PARTITIONS))


async def test_snapshot_holds_the_public_totals(tmp_path: Path) -> None:
    display_texts = FakePledges({"plg_1": {"name": "Huda", "message": "for the winter"}})
    story: list[Event] = [
        drive(milestones=[milestone(3000, "some")]),
        creator("crt_a", "Noor"),
        pledge("plg_2", 700),
        payment("pay_1", 5000, 1000, pledge_id="plg_1", creator_id="crt_a", captured_at=NOON),
        payment("pay_2", 900, held=True),
    ]
    clock = FrozenClock(NOON + timedelta(seconds=30))
    async with (
        running(tmp_path, pledges=display_texts, clock=clock) as leaderboard,
        reading_snapshots(leaderboard) as reader,
    ):
        await leaderboard.publish(*story)
        shown = await reader.showing(donations=1)
        shown = await reader.named("Huda")  # whose name may come a moment after her gift
    assert shown.slug == "winter"
    assert shown.totals == {
        "drive": DRIVE,
        "slug": "winter",
        "title": {"en": "Winter"},
        "currency": "USD",
        "raised": usd("40.00"),
        "goal": usd("10000.00"),
        "percent": 0.4,
        "donations": 1,
        "donors": 1,
        "by_state": {
            "pledged": usd("7.00"),
            "captured": usd("50.00"),
            "refunded": usd("10.00"),
            "disputed": usd("0.00"),
            "offline": usd("0.00"),
            "matched": usd("0.00"),
            "held": usd("9.00"),
        },
        "per_minute": {"donations": 1, "raised": usd("50.00")},
        "leaders": [
            {
                "rank": 1,
                "creator": "crt_a",
                "slug": "noor",
                "name": "Noor",
                "raised": usd("40.00"),
                "donations": 1,
            }
        ],
        "recent": [
            {
                "id": "don_1",
                "name": "Huda",
                "message": "for the winter",
                "amount": usd("50.00"),
                "reporting_amount": usd("50.00"),
                "creator": "crt_a",
                "at": "2022-01-07T12:00:00.000Z",
            }
        ],
        "milestones": [{"title": "some", "amount": usd("30.00"), "reached_at": "2022-01-07T12:00:00.000Z"}],
        "alerts": {"version": 0, "paused": False, "skip": None, "replay": None},
        "pinned": None,
        "matching": [],
    }


async def test_drive_is_published_once_it_has_a_name(tmp_path: Path) -> None:
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(payment("pay_1"))
        await until(leaderboard.is_drained)
        await leaderboard.publish(drive())
        await reader.sequence(2)
    assert all(snapshot.slug == "winter" for snapshot in reader.snapshots)


async def test_published_sequence_can_be_read(tmp_path: Path) -> None:
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive())
        for number in range(8):
            await leaderboard.publish(payment(f"pay_{number}"))
            shown = await reader.sequence(number + 2)
            page = (await leaderboard.get(f"/v1/drives/{DRIVE}/events", f"after={shown.sequence - 1}")).json()
            assert page["data"][0]["sequence"] == shown.sequence


async def test_changes_in_quick_succession_are_combined(tmp_path: Path) -> None:
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive())
        for number in range(100):
            await leaderboard.publish(payment(f"pay_{number}"))
            await asyncio.sleep(0)
        await reader.sequence(101)
    assert len(reader.snapshots) < 100


@pytest.mark.parametrize(("changed_drives", "interval_s"), [(0, MIN_INTERVAL_S), (10_000, LOADED_INTERVAL_S)])
async def test_interval_between_snapshots_of_a_drive_depends_on_the_load(
    database: Database, tmp_path: Path, changed_drives: int, interval_s: float
) -> None:
    loop = asyncio.get_running_loop()
    async with stepped_snapshots(database, tmp_path) as (snapshots, changed, published):
        await handle_events(database, drive())
        snapshots._interval.rest(loop.time(), changed_drives)  # as after rounds of so many drives
        published_at = []
        for number in range(3):
            await handle_events(database, payment(f"pay_{number}"))
            changed.mark([DRIVE])
            while changed.now():
                await asyncio.sleep(0.001)
                await snapshots.publish_due()
            published_at.append(loop.time())
            (record,) = await published.fetch(100, 1)
            snapshot = decode(record.name, record.value)
            assert isinstance(snapshot, SnapshotTaken)
            assert snapshot.totals["donations"] == number + 1
    assert published_at[2] - published_at[0] > 2 * interval_s


async def test_each_snapshot_is_newer_than_the_previous_one(tmp_path: Path) -> None:
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive(), creator("crt_a"))
        for number in range(10):
            await leaderboard.publish(
                pledge(f"plg_{number}", 100), payment(f"pay_{number}", pledge_id=f"plg_{number}")
            )
            await leaderboard.publish(payment(f"pay_{number}", pledge_id=f"plg_{number}"))  # nothing new
            await reader.sequence(number + 2)
        shown = [snapshot_version(snapshot) for snapshot in reader.snapshots]
    assert shown == sorted(set(shown))


async def test_restart_publishes_every_drive_again_and_never_an_older_state(tmp_path: Path) -> None:
    other = "drv_01bbbbbbbbbbbbbbbbbbbbbbbb"
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(
            drive(), drive(drive_id=other, slug="spring"), pledge("plg_1"), payment("pay_1", changed_at=NOON)
        )
        await reader.showing(donations=1)
        await until(lambda: {one.slug for one in reader.snapshots} == {"winter", "spring"})
        await until(leaderboard.is_drained)
    before = reader.newest
    assert before is not None
    async with running(tmp_path) as leaderboard:
        reader = SnapshotReader(await leaderboard.bus.follow(["snapshots"], "end"))
        task = asyncio.create_task(reader.run())
        await until(lambda: {one.slug for one in reader.snapshots} == {"winter", "spring"})
        assert reader.newest is not None
        assert snapshot_version(reader.newest) >= snapshot_version(before)
        await leaderboard.publish(payment("pay_2"))
        assert snapshot_version(await reader.sequence(3)) > snapshot_version(before)
        task.cancel()
        await asyncio.wait([task])


async def test_figures_of_the_last_minute_expire_and_raise_the_revision(tmp_path: Path) -> None:
    clock = FrozenClock(NOON + timedelta(seconds=10))
    async with running(tmp_path, clock=clock) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive(), payment("pay_1", 500, captured_at=NOON))
        busy = await reader.showing(per_minute={"donations": 1, "raised": usd("5.00")})
        clock.move(61)
        still = await reader.showing(per_minute={"donations": 0, "raised": usd("0.00")})
    assert still.sequence == busy.sequence
    assert still.revision > busy.revision


async def test_restarted_process_expires_the_last_minute_of_its_predecessor(tmp_path: Path) -> None:
    clock = FrozenClock(NOON + timedelta(seconds=10))
    async with running(tmp_path, clock=clock) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive(), payment("pay_1", 500, captured_at=NOON))
        busy = await reader.showing(donations=1)
    clock.move(3600)
    async with running(tmp_path, clock=clock) as leaderboard, reading_snapshots(leaderboard) as reader:
        await until(lambda: reader.newest is not None and reader.newest.revision > busy.revision)
        assert reader.newest is not None
        assert reader.newest.totals["per_minute"]["donations"] == 0


async def test_missing_display_texts_are_published_later(tmp_path: Path) -> None:
    display_texts = FakePledges({"plg_1": {"name": "Huda", "message": None}}, unavailable=True)
    async with (
        running(tmp_path, pledges=display_texts) as leaderboard,
        reading_snapshots(leaderboard) as reader,
    ):
        await leaderboard.publish(drive(), payment("pay_1", pledge_id="plg_1"))
        counted = await reader.showing(donations=1)
        assert counted.totals["recent"] == []  # until it is plain that the name does not come
        await until(lambda: reader.newest is not None and reader.newest.totals["recent"])
        unavailable_pledges = reader.newest
        assert unavailable_pledges is not None
        assert unavailable_pledges.totals["recent"][0]["name"] is None
        display_texts.unavailable = False
        named = await reader.named("Huda")
        assert named.sequence == unavailable_pledges.sequence
        assert named.revision > unavailable_pledges.revision


async def test_texts_stored_while_a_snapshot_is_published_are_shown(
    database: Database, tmp_path: Path
) -> None:
    """Another request, such as the stream's, may keep them at any moment."""
    fake_pledges = FakePledges({"plg_1": {"name": "Huda", "message": None}})
    async with stepped_snapshots(database, tmp_path, pledges=fake_pledges) as (snapshots, changed, published):
        display_texts = snapshots.texts._display_texts
        await handle_events(database, drive(), payment("pay_1", pledge_id="plg_1"))
        read = snapshots._read

        async def read_and_keep(due: Any) -> Any:
            figures_read = await read(due)
            await display_texts.of(["plg_1"])
            return figures_read

        snapshots._read = read_and_keep  # type: ignore[method-assign]
        changed.mark([DRIVE])
        await snapshots.publish_due()
        snapshots._read = read  # type: ignore[method-assign]
        shown = [decode(one.name, one.value) for one in await published.fetch(100, 1)]
        await display_texts.fetch_requested()
        await snapshots.texts.republish_due()
        await until(lambda: publish_and_end(snapshots, changed))
        shown += [decode(one.name, one.value) for one in await published.fetch(100, 1)]
        taken = [one for one in shown if isinstance(one, SnapshotTaken)]
        assert [[gift["name"] for gift in one.totals["recent"]] for one in taken] == [[], ["Huda"]]
        assert snapshot_version(taken[1]) > snapshot_version(taken[0])


async def test_takeover_shows_texts_stored_after_the_last_snapshot(
    database: Database, tmp_path: Path
) -> None:
    fake_pledges = FakePledges({"plg_1": {"name": "Huda", "message": None}}, unavailable=True)
    async with stepped_snapshots(database, tmp_path, pledges=fake_pledges) as (snapshots, changed, published):
        await handle_events(database, drive(), payment("pay_1", pledge_id="plg_1"))
        changed.mark([DRIVE])
        await snapshots.publish_due()
        before = [decode(one.name, one.value) for one in await published.fetch(100, 1)][-1]
    fake_pledges.unavailable = False
    await DisplayTexts(database, fake_pledges, SECRET).of(
        ["plg_1"]
    )  # asked for by the stream; then the process dies
    async with stepped_snapshots(database, tmp_path) as (snapshots, changed, published):
        await until(lambda: publish_and_end(snapshots, changed))
        after = [decode(one.name, one.value) for one in await published.fetch(100, 1)][-1]
        assert isinstance(before, SnapshotTaken)
        assert isinstance(after, SnapshotTaken)
        assert after.totals["recent"][0]["name"] == "Huda"
        assert snapshot_version(after) > snapshot_version(before)


async def test_drive_that_lost_a_payment_is_published_by_its_owner(
    database: Database, tmp_path: Path
) -> None:
    """The process that consumed the change may read the new drive's partition only."""
    other = "drv_01bbbbbbbbbbbbbbbbbbbbbbbb"
    async with stepped_snapshots(database, tmp_path) as (snapshots, changed, published):
        await handle_events(database, drive(), drive(drive_id=other, slug="spring"), payment("pay_1", 500))
        changed.mark([DRIVE])
        later = SystemClock().now()
        await snapshots.refresh()  # lets the gift's own minute fall
        await until(lambda: publish_and_end(snapshots, changed))
        await handle_events(
            database, payment("pay_1", 500, drive_id=other, captured_at=later, version=2)
        )  # nothing is marked here
        await snapshots.refresh()
        assert changed.now() == [DRIVE]
        await until(lambda: publish_and_end(snapshots, changed))
        last = [decode(one.name, one.value) for one in await published.fetch(100, 1)][-1]
        assert isinstance(last, SnapshotTaken)
        assert (last.drive_id, last.totals["donations"], last.totals["recent"]) == (DRIVE, 0, [])
        await snapshots.refresh()
        assert changed.now() == []


async def test_donation_is_recent_once_with_its_last_captured_amount(tmp_path: Path) -> None:
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive(), payment("pay_1", 500), payment("pay_2", 700))
        await reader.showing(donations=2)
        await leaderboard.publish(payment("pay_1", 500, held=True, version=2))
        await reader.showing(donations=1)
        await leaderboard.publish(payment("pay_1", 900, version=3))
        shown = await reader.showing(donations=2)
        assert [(one["id"], one["amount"]["value"]) for one in shown.totals["recent"]] == [
            ("don_1", "9.00"),
            ("don_2", "7.00"),
        ]


async def test_display_texts_are_requested_once_and_in_a_batch(tmp_path: Path) -> None:
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        gifts = [payment(f"pay_{number}", pledge_id=f"plg_{number}") for number in range(5)]
        await leaderboard.publish(drive(), *gifts)
        await reader.showing(donations=5)
        await leaderboard.publish(payment("pay_9", pledge_id="plg_9"))
        await reader.showing(donations=6)
        await until(lambda: "plg_9" in leaderboard.pledges.asked[-1])
        asked = [one for each in leaderboard.pledges.asked for one in each]
    assert sorted(asked) == [f"plg_{number}" for number in (0, 1, 2, 3, 4, 9)]


async def test_refunded_donation_is_not_recent(tmp_path: Path) -> None:
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive(), *(payment(f"pay_{number}") for number in range(25)))
        shown = await reader.showing(donations=25)
        assert [one["id"] for one in shown.totals["recent"]] == [f"don_{n}" for n in range(24, 4, -1)]
        await leaderboard.publish(payment("pay_24", 2500, refunded=2500, version=2))
        shown = await reader.showing(donations=24)
        assert [one["id"] for one in shown.totals["recent"]] == [f"don_{n}" for n in range(23, 3, -1)]


async def test_heartbeat_is_the_lowest_watermark_of_the_inputs(tmp_path: Path) -> None:
    early, late = datetime(2022, 1, 7, 12, tzinfo=UTC), datetime(2022, 1, 7, 13, tzinfo=UTC)
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.bus.publish_watermarks("pledges", late, range(PARTITIONS))
        await leaderboard.publish(drive())
        # Payments has published no watermark: earlier donations may not be included yet.
        assert (await reader.sequence(1)).as_of == ids.created_at(DRIVE) < NOON
        assert reader.heartbeats == []
        await mark_inputs(leaderboard, late, early)
        await until(
            lambda: {heartbeat.partition for heartbeat in reader.heartbeats} == set(range(PARTITIONS))
        )
        assert {heartbeat.as_of for heartbeat in reader.heartbeats} == {early}
        # Behind the snapshots it covers, on a bus that keeps order within a partition only.
        assert all(partition_of(heartbeat.slot) == heartbeat.partition for heartbeat in reader.heartbeats)
        assert {heartbeat.slot for heartbeat in reader.heartbeats} == {
            key_of_partition(number) for number in range(PARTITIONS)
        }
        await mark_inputs(leaderboard, late, late)
        await until(lambda: reader.heartbeats[-1].as_of == late)
        await leaderboard.publish(payment("pay_1"))
        assert (await reader.sequence(2)).as_of == late


async def test_as_of_is_not_before_the_drives_creation(tmp_path: Path) -> None:
    """Watermarks of a drive just made are older than it; a gateway already shows it as of its creation."""
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        before = ids.created_at(DRIVE) - timedelta(milliseconds=300)
        await mark_inputs(leaderboard, before, before)
        await until(lambda: reader.heartbeats)
        await leaderboard.publish(drive())
        assert (await reader.sequence(1)).as_of == ids.created_at(DRIVE)


@asynccontextmanager
async def stepped_snapshots(
    database: Database,
    folder: Path,
    owned_partitions: dict[Partition, int] | None = None,
    pledges: FakePledges | None = None,
) -> AsyncIterator[tuple[Snapshots, ChangedDrives, Subscription]]:
    """Snapshots that are taken only on request, with watermarks from every input, and what is published.

    `owned_partitions` is what the consumer reads: everything, unless it is given.
    """
    bus, changed = SqliteBus(folder / "bus.db", synchronous="OFF"), ChangedDrives()
    marks = {Partition(topic, n): NOON for topic in INPUTS for n in range(PARTITIONS)}
    display_texts = DisplayTexts(database, pledges or FakePledges(), SECRET)
    assignments = dict.fromkeys(marks, 1) if owned_partitions is None else owned_partitions
    freshness = Freshness(marks, lambda: dict(assignments))
    snapshots = Snapshots(database, bus, changed, freshness, display_texts, SystemClock())
    await snapshots.take_over()
    yield snapshots, changed, await bus.follow(["snapshots"], "beginning")
    await bus.close()


async def test_heartbeat_follows_the_snapshots_it_covers(database: Database, tmp_path: Path) -> None:
    async with stepped_snapshots(database, tmp_path) as (snapshots, changed, published):
        await handle_events(database, drive())
        changed.mark([DRIVE])
        await snapshots.publish_due()
        await handle_events(database, payment("pay_1"))
        changed.mark([DRIVE])  # whose turn it is not yet
        await snapshots.begin_heartbeat()
        await snapshots.heartbeats.publish()
        assert [record.key for record in await published.fetch(100, 1)] == [DRIVE]
        await until(lambda: publish_and_end(snapshots, changed))
        later = {record.key for record in await published.fetch(100, 1)}
        assert later == {DRIVE, *(key_of_partition(number) for number in range(PARTITIONS))}


async def test_unchanged_drive_is_not_published_again(database: Database, tmp_path: Path) -> None:
    async with stepped_snapshots(database, tmp_path) as (snapshots, changed, published):
        await handle_events(database, drive())
        changed.mark([DRIVE])
        await snapshots.publish_due()
        assert len(await published.fetch(100, 1)) == 1
        await handle_events(database, drive())
        changed.mark([DRIVE])
        await until(lambda: publish_and_end(snapshots, changed))
        assert await published.fetch(100, 0) == []


def many_drives(count: int) -> list[str]:
    """Ids of `count` drives other than `DRIVE`."""
    return [f"drv_{number:026}" for number in range(count)]


async def test_changed_drive_does_not_wait_behind_drives_that_are_published_again(
    database: Database, tmp_path: Path
) -> None:
    many = many_drives(60)
    await handle_events(database, *(drive(drive_id=one, slug=one) for one in many), drive(), payment("pay_1"))
    async with stepped_snapshots(database, tmp_path) as (snapshots, changed, published):
        await until(lambda: publish_and_end(snapshots, changed))
        await published.fetch(1000, 1)
        changed_since = many[-10:]
        snapshots._mark(many[:-10])  # as at a takeover
        await handle_events(database, *(payment(f"pay_{one}", drive_id=one) for one in changed_since))
        changed.mark(changed_since)
        snapshots._interval.due = float("-inf")
        snapshots._published = {one: (found[0], 0.0) for one, found in snapshots._published.items()}
        await snapshots.publish_due()
        first = [record.key for record in await published.fetch(1000, 1)]
        assert set(changed_since) < set(first)
        assert len(first) > len(changed_since)  # the others are published too, whatever changes
        await until(lambda: publish_and_end(snapshots, changed))
        rest = [record.key for record in await published.fetch(1000, 1)]
        assert set(first) | set(rest) >= set(many)


async def test_unchanged_drives_are_published_again_a_few_at_a_time(
    database: Database, tmp_path: Path
) -> None:
    many = many_drives(3 * REPUBLISH_PARTS - 1)
    await handle_events(database, *(drive(drive_id=one, slug=one) for one in many))
    async with stepped_snapshots(database, tmp_path) as (snapshots, changed, _published):
        for one in changed.now():
            changed.unmark(one)
        await snapshots.begin_republishing()
        again: list[str] = []
        for _ in range(REPUBLISH_PARTS):
            await snapshots.republish_part()
            assert len(changed.now()) <= 3
            again += [one for one in changed.now() if changed.unmark(one) is not None]
        assert sorted(again) == many
        await snapshots.republish_part()
        assert changed.now() == []


async def test_process_publishes_only_drives_of_its_partitions(database: Database, tmp_path: Path) -> None:
    mine = partition_of(DRIVE)
    other = next(one for n in range(100) if partition_of(one := f"drv_{n}") != mine)
    await handle_events(database, drive(), drive(drive_id=other, slug="spring"))
    owned_partitions = {Partition(topic, mine): 1 for topic in INPUTS}
    async with stepped_snapshots(database, tmp_path, owned_partitions) as (snapshots, changed, published):
        changed.mark([DRIVE, other])
        await snapshots.begin_heartbeat()
        await until(lambda: publish_and_end(snapshots, changed))
        assert {record.key for record in await published.fetch(100, 1)} == {DRIVE, key_of_partition(mine)}
        owned_partitions.clear()
        await snapshots.take_over()
        changed.mark([DRIVE])
        await snapshots.begin_heartbeat()
        await until(lambda: publish_and_end(snapshots, changed))
        assert await published.fetch(100, 0) == []


@pytest.mark.parametrize("before", [None, 1])
async def test_takeover_publishes_drives_before_heartbeats(
    database: Database, tmp_path: Path, before: int | None
) -> None:
    """Whether it had none of it, or had it and lost it to another for a while."""
    inputs = {Partition(topic, partition_of(DRIVE)) for topic in INPUTS}
    owned_partitions = dict.fromkeys(inputs, before) if before else {}
    async with stepped_snapshots(database, tmp_path, owned_partitions) as (snapshots, changed, published):
        await handle_events(
            database, drive(state=DriveState.CLOSED)
        )  # by another process: nothing is marked here
        owned_partitions |= dict.fromkeys(inputs, 2)
        await snapshots.begin_heartbeat()  # not ours yet, as far as the publisher knows
        await snapshots.heartbeats.publish()
        assert await published.fetch(100, 0) == []
        await snapshots.take_over()
        await snapshots.begin_heartbeat()
        await snapshots.heartbeats.publish()
        assert await published.fetch(100, 0) == []
        await until(lambda: publish_and_end(snapshots, changed))
        assert {record.key for record in await published.fetch(100, 1)} == {
            DRIVE,
            key_of_partition(partition_of(DRIVE)),
        }


async def test_figures_of_another_process_are_left_to_it(database: Database, tmp_path: Path) -> None:
    await handle_events(database, drive(), payment("pay_1", captured_at=NOON))
    before = await drive_row(database)
    async with stepped_snapshots(database, tmp_path, {}) as (snapshots, _, _):
        await snapshots.refresh()
        assert (await drive_row(database)).revision == before.revision
    async with stepped_snapshots(database, tmp_path) as (snapshots, _, _):
        before = await drive_row(database)
        await snapshots.refresh()
        assert (await drive_row(database)).revision == before.revision + 1


async def publish_and_end(snapshots: Snapshots, changed: ChangedDrives) -> bool:
    await snapshots.publish_due()
    await snapshots.heartbeats.publish()
    return not changed.now()


@pytest.mark.parametrize("state", [DriveState.PAUSED, DriveState.CLOSED])
async def test_drive_that_is_not_live_is_published(tmp_path: Path, state: DriveState) -> None:
    async with running(tmp_path) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive(1, DriveState.LIVE), drive(2, state), payment("pay_1"))
        await reader.showing(donations=1)
