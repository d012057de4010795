"""A counted donation gets one receipt, whatever repeats, fails or dies in between."""

from __future__ import annotations

import asyncio
import email
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from email.policy import default
from pathlib import Path

import pytest

from backbone import ids
from backbone.money import Money
from backbone.peer import PeerUnavailable
from services.notify.domain import RETRY_AFTER_S
from tests.notify.stage import Stage, counted
from tests.waiting import PATIENCE_S


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with Stage(tmp_path).running() as stage:
        yield stage


async def test_a_counted_donation_is_thanked_in_a_letter(stage: Stage) -> None:
    payment = ids.new("pay")
    await stage.say(counted(payment, pledge=stage.donor(), amount=Money(2550, "USD")))
    await stage.settled(payment, "sent")
    letter = email.message_from_bytes(stage.files()[payment], policy=default)
    assert letter["To"] == "sara@example.org"
    assert letter["From"] == "Winter <receipts@winter.example>"
    assert letter["Message-ID"] == f"<receipt.{payment}@winter.example>"
    text = str(letter.get_payload(0))
    assert "Dear Sara," in text
    assert "$25.50" in text
    assert payment in text


async def test_what_is_no_donation_from_a_pledge_gets_no_receipt(tmp_path: Path) -> None:
    stage, pledge, donation = Stage(tmp_path), ids.new("plg"), ids.new("pay")
    await stage.owe(
        counted(ids.new("pay"), pledge=pledge, kind="donation.refunded"),
        counted(ids.new("pay"), pledge=None),
        counted(donation, pledge=pledge),
    )
    assert set(await stage.receipts()) == {donation}


async def test_a_donor_without_an_address_gets_no_letter_and_is_not_asked_for_again(tmp_path: Path) -> None:
    stage, nameless, unknown = Stage(tmp_path), ids.new("pay"), ids.new("pay")
    await stage.owe(
        counted(nameless, pledge=stage.donor(email=None)), counted(unknown, pledge=ids.new("plg"))
    )
    async with stage.by_hand() as sender:
        assert await sender.send_due() == 2
        stage.clock.move(24 * 3600)
        assert await sender.send_due() == 0
    assert {row.status for row in (await stage.receipts()).values()} == {"no_address"}
    assert stage.files() == {}


async def test_a_donation_told_twice_is_thanked_once(tmp_path: Path) -> None:
    stage, payment, later = Stage(tmp_path), ids.new("pay"), ids.new("pay")
    pledge = stage.donor()
    async with stage.by_hand() as sender:
        await stage.owe(counted(payment, pledge=pledge), counted(payment, pledge=pledge))
        assert await sender.send_due() == 1
        await stage.owe(counted(payment, pledge=pledge), counted(later, pledge=pledge))
        assert await sender.send_due() == 1
    assert set(stage.files()) == {payment, later}


async def test_nothing_of_a_person_is_stored(tmp_path: Path) -> None:
    stage, payment = Stage(tmp_path), ids.new("pay")
    await stage.owe(counted(payment, pledge=stage.donor(email="secret@example.org", name="Zainab")))
    async with stage.by_hand() as sender:
        await sender.send_due()
    assert b"secret@example.org" in stage.files()[payment]
    stored = stage.stored()
    assert payment.encode() in stored
    assert b"secret@example.org" not in stored
    assert b"Zainab" not in stored


async def test_nothing_is_sent_again_after_a_restart(tmp_path: Path) -> None:
    payment, later = ids.new("pay"), ids.new("pay")
    stage = Stage(tmp_path)
    async with stage.running():
        await stage.say(counted(payment, pledge=stage.donor()))
        await stage.settled(payment, "sent")
    (tmp_path / "receipts" / f"{payment}.eml").unlink()
    async with stage.running():
        await stage.say(counted(later, pledge=stage.donor()))
        await stage.settled(later, "sent")
    assert set(stage.files()) == {later}


async def test_a_receipt_waits_for_pledges_to_come_back(tmp_path: Path) -> None:
    stage, payment = Stage(tmp_path), ids.new("pay")
    await stage.owe(counted(payment, pledge=stage.donor()))
    stage.pledges.away = True
    async with stage.by_hand() as sender:
        with pytest.raises(PeerUnavailable):
            await sender.send_due()
        assert (await stage.receipts())[payment].tries == 0
        stage.pledges.away = False
        await sender.send_due()
    await stage.settled(payment, "sent", tries=1)


async def test_a_folder_that_cannot_be_written_is_tried_again_and_given_up_in_the_end(tmp_path: Path) -> None:
    payment, stage = ids.new("pay"), Stage(tmp_path)
    await stage.owe(counted(payment, pledge=stage.donor()))
    (tmp_path / "receipts").write_text("in the way")
    async with stage.by_hand() as sender:
        for tries, wait_s in enumerate(RETRY_AFTER_S, start=1):
            assert await sender.send_due() == 1
            row = await stage.settled(payment, "due", tries=tries)
            assert row.due_at == stage.clock.now() + timedelta(seconds=wait_s)
            assert await sender.send_due() == 0
            stage.clock.move(wait_s)
        assert await sender.send_due() == 1
        row = await stage.settled(payment, "given_up", tries=len(RETRY_AFTER_S) + 1)
        assert "file" in row.reason
        stage.clock.move(30 * 24 * 3600)
        assert await sender.send_due() == 0


async def test_it_tries_no_more_a_tick_than_it_may_and_loses_none(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    payments = [ids.new("pay") for _ in range(25)]
    await stage.owe(*(counted(payment, pledge=stage.donor()) for payment in payments))
    async with stage.by_hand() as sender:
        assert [await sender.send_due() for _ in range(4)] == [10, 10, 5, 0]
    assert set(stage.files()) == set(payments)
    assert stage.pledges.asked == 3


async def test_a_crash_between_sending_and_recording_repeats_the_very_same_letter(tmp_path: Path) -> None:
    payment = ids.new("pay")
    stage = Stage(tmp_path)
    pledge = stage.donor()
    await stage.owe(counted(payment, pledge=pledge))
    died = await asyncio.to_thread(_run_until_it_dies, tmp_path, pledge)
    assert died == -signal.SIGKILL
    first = stage.files()[payment]
    assert (await stage.receipts())[payment].status == "due"
    async with stage.running():
        await stage.settled(payment, "sent", tries=1)
    assert stage.files() == {payment: first}


def _run_until_it_dies(folder: Path, pledge: str) -> int:
    """A process of its own that sends what is due in `folder` and is killed before it records so."""
    script = """
import asyncio, sys
from pathlib import Path
from tests.notify.stage import Stage
async def main():
    stage = Stage(Path(sys.argv[1]))
    stage.pledges.people[sys.argv[2]] = {
        "email": "sara@example.org", "name": "Sara", "locale": "en", "title": "Winter"}
    async with stage.running():
        await asyncio.Event().wait()
asyncio.run(main())
"""
    environment = os.environ | {"ATAA_CRASH_AT": "notify.receipts.after_send", "PYTHONPATH": "."}
    return subprocess.run(
        [sys.executable, "-c", script, str(folder), pledge], env=environment, timeout=PATIENCE_S, check=False
    ).returncode
