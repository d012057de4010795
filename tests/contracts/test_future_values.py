"""Values introduced by a newer version can be decoded, and every consumer handles them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update

from backbone import ids
from backbone.contracts import DriveLogged, DriveState, PaymentChanged, PaymentStatus, decode, wire_names
from backbone.contracts.payments import nearest_status
from services.leaderboard.tables import drives
from services.payments.queries import read_checkouts
from services.payments.tables import PAYMENTS
from tests.contracts.future_events import FUTURE, WIRE_NAMES, future_event, future_fields, future_message
from tests.gateway.harness import gateway
from tests.gateway.test_stream import LIVE, Reading
from tests.gateway.test_totals import sequence
from tests.leaderboard.builders import (
    DRIVE,
    drive,
    drive_row,
    handle_events,
    log_rows,
    open_database,
    payment,
    pledge,
    running,
)
from tests.notify.harness import Harness as Notify
from tests.notify.harness import counted
from tests.payments.books import open_books
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata
from tests.pledges.harness import pledges_harness
from tests.waiting import until


def schemas() -> list[tuple[str, Any]]:
    return [(name, wire_names()[name].model_json_schema(mode="serialization")) for name in WIRE_NAMES]


def nodes(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [found for one in node for found in nodes(one)]
    if not isinstance(node, dict):
        return []
    return [node, *(found for one in node.values() for found in nodes(one))]


@pytest.mark.parametrize(("name", "schema"), schemas(), ids=WIRE_NAMES)
def test_no_event_has_a_closed_enumeration(name: str, schema: Any) -> None:
    assert [node for node in nodes(schema) if "enum" in node or "const" in node] == []


@pytest.mark.parametrize(("name", "schema"), schemas(), ids=WIRE_NAMES)
def test_every_enumeration_keeps_a_frozen_future_value(name: str, schema: Any) -> None:
    fields = {field: node["examples"] for field, node in schema["properties"].items() if "examples" in node}
    if not fields:
        assert not (FUTURE / f"{name}.json").exists()
        return
    frozen = future_fields(name)
    event = decode(name, json.dumps(frozen).encode())
    assert event is not None
    for field, known in fields.items():
        assert frozen[field] not in known
        assert getattr(event, field) == frozen[field]
    kept = {n: v for n, v in frozen.items() if n != "of_a_later_version"}
    added = {n: one.default for n, one in type(event).model_fields.items() if n not in frozen}
    assert json.loads(event.to_bytes()) == kept | added


def test_known_value_is_decoded_to_its_enumeration() -> None:
    sent = future_fields("payments.payment_changed.v1", status="disputed")
    event = decode("payments.payment_changed.v1", json.dumps(sent).encode())
    assert isinstance(event, PaymentChanged)
    assert event.status is PaymentStatus.DISPUTED


@pytest.mark.parametrize("value", [None, 7, "", ["captured"]])
def test_status_that_is_not_a_string_is_refused(value: Any) -> None:
    sent = json.dumps(future_fields("payments.payment_changed.v1", status=value)).encode()
    with pytest.raises(ValueError, match="status"):
        decode("payments.payment_changed.v1", sent)


@pytest.mark.parametrize(
    ("amounts", "status"),
    [
        ((0, 0, 0), PaymentStatus.AWAITED),
        ((50, 0, 0), PaymentStatus.CAPTURED),
        ((50, 20, 0), PaymentStatus.PARTLY_REFUNDED),
        ((50, 50, 0), PaymentStatus.REFUNDED),
        ((50, 0, 10), PaymentStatus.DISPUTED),
        ((50, 50, 50), PaymentStatus.DISPUTED),
    ],
)
def test_an_unknown_status_of_a_payment_is_read_from_its_amounts(
    amounts: tuple[int, int, int], status: PaymentStatus
) -> None:
    assert nearest_status("escheated", *amounts) is status
    assert nearest_status("lapsed", *amounts) is PaymentStatus.LAPSED


# Consumers, each with its own store.


async def test_leaderboard_counts_a_payment_whose_status_it_does_not_know(tmp_path: Path) -> None:
    async with running(tmp_path) as board:
        with no_dead_letters("leaderboard"):
            await board.publish(drive())
            await board.bus.publish([future_message("payments.payment_changed.v1", drive_id=DRIVE)])
            await until(board.is_drained)
        assert (await board.get("/internal/books", internal=True)).json() == {"USD": "25.00"}


async def test_leaderboard_keeps_the_last_known_state_of_a_drive(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await handle_events(database, drive(1, DriveState.LIVE))
        await handle_events(
            database, future_event("pledges.drive_changed.v1", drive_id=DRIVE, version=2, slug="renamed")
        )
        row = await drive_row(database)
        assert (row.version, row.slug, row.state) == (2, "renamed", "live")
        await handle_events(database, drive(3, DriveState.CLOSED))
        types = [one["type"] for one in await log_rows(database)]
        assert types == ["drive.opened", "drive.closed"]


async def test_leaderboard_continues_from_a_state_stored_by_a_newer_process(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await handle_events(database, drive(1, DriveState.LIVE), payment("pay_1"))
        async with database.transaction() as session:
            await session.execute(update(drives).values(state="archived"))
        await handle_events(database, drive(2, DriveState.CLOSED))
        assert [one["type"] for one in await log_rows(database)][-1] == "drive.closed"


async def test_leaderboard_shows_a_drive_first_received_in_an_unknown_state(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await handle_events(
            database, future_event("pledges.drive_changed.v1", drive_id=DRIVE, version=1), payment("pay_1")
        )
        row = await drive_row(database)
        assert (row.version, row.state, row.captured) == (1, None, 2500)


async def test_leaderboard_does_not_count_a_pledge_in_an_unknown_status_as_open(tmp_path: Path) -> None:
    async with open_database(tmp_path) as database:
        await handle_events(database, drive(), pledge("plg_1", 1000))
        await handle_events(
            database, future_event("pledges.pledge_changed.v1", drive_id=DRIVE, pledge_id="plg_1")
        )
        assert (await drive_row(database)).pledged == 0


async def test_pledges_shows_a_pledge_by_the_amounts_of_a_payment_in_an_unknown_status(
    tmp_path: Path,
) -> None:
    async with pledges_harness(tmp_path) as stage:
        await stage.drive()
        made = (await stage.pledge()).json()
        message = future_message("payments.payment_changed.v1", pledge_id=made["id"], drive_id=made["drive"])
        with no_dead_letters("pledges"):
            async with stage.running_workers():
                await stage.bus.publish([message])

                async def is_paid() -> bool:
                    found = await stage.post_internal("/internal/pledges", ids=[made["id"]])
                    return bool(found[made["id"]]["pledge"]["status"] == "paid")

                await until(is_paid)
        assert (await stage.get("/internal/books")).json() == {"USD": "25.00"}


async def test_payments_queues_a_pledge_and_stores_a_drive_with_unknown_values(
    tmp_path: Path,
) -> None:
    async with open_books(tmp_path) as books:
        await books.consume(future_event("pledges.drive_changed.v1"), future_event("pledges.pledge_made.v1"))
        pledge_id = future_fields("pledges.pledge_made.v1")["pledge_id"]
        (row,) = await books.payments(pledge_id)
        assert (row.checkout, row.mode) == ("waiting", "terminal")
        await books.consume(future_event("pledges.pledge_changed.v1"))
        (row,) = await books.payments(pledge_id)
        assert (row.checkout, row.pledge_version) == ("waiting", 7)


async def test_payments_reads_a_status_that_a_newer_process_stored_by_its_amounts(tmp_path: Path) -> None:
    async with open_books(tmp_path) as books:
        known_drive = a_drive()
        pledged = a_pledge(known_drive)
        await books.consume(known_drive, pledged)
        about = metadata(None, pledged.pledge_id, known_drive.drive_id)
        await books.apply([intent_succeeded("pi_1", 2_500, about)])
        async with books.database.transaction() as session:
            await session.execute(update(PAYMENTS).values(status="escheated"))
        async with books.database.reading() as session:
            found = await read_checkouts(session, [pledged.pledge_id], "", books.clock.now())
        assert found[pledged.pledge_id]["status"] == "paid"


async def test_notify_ignores_an_unknown_log_row(tmp_path: Path) -> None:
    with no_dead_letters("notify"):
        async with Notify(tmp_path).running() as notify:
            await notify.bus.publish([future_message("leaderboard.drive_logged.v1")])
            last = ids.new("pay")
            await notify.say(counted(last, pledge=notify.donor()))
            await notify.settled(last, "sent")
            assert len(notify.files()) == 1


async def test_gateway_hides_an_unknown_log_row_and_keeps_the_sequence(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path) as stage:
        await stage.snapshot(1)
        await sequence(stage, 1)
        async with stage.session.get(LIVE) as reply:
            stream = Reading(reply)
            await stream.until("totals")
            await stage.log(2)
            assert (await stream.until("donation"))[0] == "2"
            row = future_message("leaderboard.drive_logged.v1", sequence=3)
            await stage.bus.publish([row])
            await stage.log(4)
            seen = []
            while (frame := await stream.next())[0] != "donation":
                seen.append(frame[0])
            assert frame[1] == "4"
            assert "gap" not in seen


@contextmanager
def no_dead_letters(group: str) -> Iterator[None]:
    """Fail if an event becomes a dead letter meanwhile."""

    def count() -> float | None:
        return REGISTRY.get_sample_value("ataa_consumer_dead_letters_total", {"group": group})

    before = count() or 0.0
    yield
    assert (count() or 0.0) == before


def test_unknown_log_row_keeps_its_type() -> None:
    sent = future_fields("leaderboard.drive_logged.v1")
    event = decode("leaderboard.drive_logged.v1", json.dumps(sent).encode())
    assert isinstance(event, DriveLogged)
    assert event.as_row()["type"] == "donation.reassigned"
