"""A counted donation gets one receipt, whatever repeats, fails or dies in between."""

from __future__ import annotations

import asyncio
import email
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from email.policy import default
from pathlib import Path

import pytest

from backbone import ids
from backbone.money import Money
from services.notify.domain import RETRY_AFTER_S
from tests.notify.stage import Stage, counted
from tests.waiting import until


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
    text = letter.get_body(("plain",)).get_content()
    assert "Dear Sara," in text
    assert "$25.50" in text
    assert payment in text


async def test_what_is_no_donation_from_a_pledge_gets_no_receipt(stage: Stage) -> None:
    pledge, sentinel = stage.donor(), ids.new("pay")
    await stage.say(
        counted(ids.new("pay"), pledge=pledge, kind="donation.refunded"),
        counted(ids.new("pay"), pledge=None),
        counted(sentinel, pledge=pledge),
    )
    await stage.settled(sentinel, "sent")
    assert set(await stage.receipts()) == {sentinel}


async def test_a_donor_without_an_address_gets_no_letter_and_is_not_asked_for_again(stage: Stage) -> None:
    nameless, unknown = ids.new("pay"), ids.new("pay")
    await stage.say(
        counted(nameless, pledge=stage.donor(email=None)), counted(unknown, pledge=ids.new("plg"))
    )
    await stage.settled(nameless, "no_address")
    await stage.settled(unknown, "no_address")
    assert stage.files() == {}
    asked = stage.pledges.asked
    later = ids.new("pay")
    await stage.say(counted(later, pledge=stage.donor()))
    await stage.settled(later, "sent")
    assert stage.pledges.asked == asked + 1


async def test_a_donation_told_twice_is_thanked_once(stage: Stage) -> None:
    payment, pledge, later = ids.new("pay"), stage.donor(), ids.new("pay")
    await stage.say(counted(payment, pledge=pledge))
    await stage.settled(payment, "sent")
    (stage.folder / "receipts" / f"{payment}.eml").unlink()
    await stage.say(counted(payment, pledge=pledge), counted(later, pledge=pledge))
    await stage.settled(later, "sent")
    assert set(stage.files()) == {later}


async def test_nothing_of_a_person_is_stored(stage: Stage) -> None:
    payment = ids.new("pay")
    await stage.say(counted(payment, pledge=stage.donor(email="secret@example.org", name="Zainab")))
    await stage.settled(payment, "sent")
    for file in stage.folder.glob("notify.db*"):
        assert b"secret@example.org" not in file.read_bytes()
        assert b"Zainab" not in file.read_bytes()


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


async def test_a_receipt_waits_for_pledges_to_come_back(stage: Stage) -> None:
    payment = ids.new("pay")
    stage.pledges.away = True
    await stage.say(counted(payment, pledge=stage.donor()))
    await until(lambda: stage.pledges.asked > 0)
    assert (await stage.receipts())[payment].tries == 0
    stage.pledges.away = False
    await stage.settled(payment, "sent")


async def test_a_folder_that_cannot_be_written_is_tried_again_and_given_up_in_the_end(stage: Stage) -> None:
    payment = ids.new("pay")
    (stage.folder / "receipts").write_text("in the way")
    await stage.say(counted(payment, pledge=stage.donor()))
    for tries, wait_s in enumerate(RETRY_AFTER_S, start=1):
        await stage.settled(payment, "due", tries=tries)
        stage.clock.move(wait_s)
    row = await stage.settled(payment, "given_up", tries=len(RETRY_AFTER_S) + 1)
    assert "file" in row.reason
    assert row.due_at is None


async def test_it_sends_no_more_a_second_than_it_may(tmp_path: Path) -> None:
    stage = Stage(tmp_path, receipts_per_s=10.0)
    payments = [ids.new("pay") for _ in range(25)]
    async with stage.running():
        began = time.monotonic()
        await stage.say(*(counted(payment, pledge=stage.donor()) for payment in payments))
        await stage.settled(max(payments), "sent")
        taken_s = time.monotonic() - began
    assert set(stage.files()) == set(payments)
    assert taken_s > 1.9
    assert stage.pledges.asked == 3


async def test_a_crash_between_sending_and_recording_repeats_the_very_same_letter(tmp_path: Path) -> None:
    payment = ids.new("pay")
    stage = Stage(tmp_path)
    async with stage.running(without=("notify.receipts",)):
        pledge = stage.donor()
        await stage.say(counted(payment, pledge=pledge))
        await stage.settled(payment, "due")
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
        [sys.executable, "-c", script, str(folder), pledge], env=environment, timeout=20, check=False
    ).returncode
