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
from backbone.http.service_client import ServiceUnavailable
from backbone.money import Money
from services.notify.domain import RETRY_AFTER_S
from tests.notify.harness import Harness, counted
from tests.waiting import PATIENCE_S


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with Harness(tmp_path).running() as harness:
        yield harness


async def test_counted_donation_gets_a_receipt(harness: Harness) -> None:
    payment = ids.new("pay")
    await harness.say(counted(payment, pledge=harness.donor(), amount=Money(2550, "USD")))
    await harness.settled(payment, "sent")
    message = email.message_from_bytes(harness.files()[payment], policy=default)
    assert message["To"] == "sara@example.org"
    assert message["From"] == "Winter <receipts@winter.example>"
    assert message["Message-ID"] == f"<receipt.{payment}@winter.example>"
    text = str(message.get_payload(0))
    assert "Dear Sara," in text
    assert "$25.50" in text
    assert payment in text


async def test_refunds_and_donations_without_a_pledge_get_no_receipt(tmp_path: Path) -> None:
    harness, pledge, donation = Harness(tmp_path), ids.new("plg"), ids.new("pay")
    await harness.queue(
        counted(ids.new("pay"), pledge=pledge, kind="donation.refunded"),
        counted(ids.new("pay"), pledge=None),
        counted(donation, pledge=pledge),
    )
    assert set(await harness.receipts()) == {donation}


async def test_donor_without_an_address_is_looked_up_once(tmp_path: Path) -> None:
    harness, without_address, unknown = Harness(tmp_path), ids.new("pay"), ids.new("pay")
    await harness.queue(
        counted(without_address, pledge=harness.donor(email=None)), counted(unknown, pledge=ids.new("plg"))
    )
    async with harness.manual_sender() as sender:
        assert await sender.send_due() == 2
        harness.clock.move(24 * 3600)
        assert await sender.send_due() == 0
    assert {row.status for row in (await harness.receipts()).values()} == {"no_address"}
    assert harness.files() == {}


async def test_donation_counted_twice_gets_one_receipt(tmp_path: Path) -> None:
    harness, payment, later = Harness(tmp_path), ids.new("pay"), ids.new("pay")
    pledge = harness.donor()
    async with harness.manual_sender() as sender:
        await harness.queue(counted(payment, pledge=pledge), counted(payment, pledge=pledge))
        assert await sender.send_due() == 1
        await harness.queue(counted(payment, pledge=pledge), counted(later, pledge=pledge))
        assert await sender.send_due() == 1
    assert set(harness.files()) == {payment, later}


async def test_no_personal_data_is_stored(tmp_path: Path) -> None:
    harness, payment = Harness(tmp_path), ids.new("pay")
    await harness.queue(counted(payment, pledge=harness.donor(email="secret@example.org", name="Zainab")))
    async with harness.manual_sender() as sender:
        await sender.send_due()
    assert b"secret@example.org" in harness.files()[payment]
    database_bytes = harness.database_bytes()
    assert payment.encode() in database_bytes
    assert b"secret@example.org" not in database_bytes
    assert b"Zainab" not in database_bytes


async def test_sent_receipt_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    payment, later = ids.new("pay"), ids.new("pay")
    harness = Harness(tmp_path)
    async with harness.running():
        await harness.say(counted(payment, pledge=harness.donor()))
        await harness.settled(payment, "sent")
    (tmp_path / "receipts" / f"{payment}.eml").unlink()
    async with harness.running():
        await harness.say(counted(later, pledge=harness.donor()))
        await harness.settled(later, "sent")
    assert set(harness.files()) == {later}


async def test_receipt_waits_while_pledges_is_unavailable(tmp_path: Path) -> None:
    harness, payment = Harness(tmp_path), ids.new("pay")
    await harness.queue(counted(payment, pledge=harness.donor()))
    harness.pledges.unavailable = True
    async with harness.manual_sender() as sender:
        with pytest.raises(ServiceUnavailable):
            await sender.send_due()
        assert (await harness.receipts())[payment].tries == 0
        harness.pledges.unavailable = False
        await sender.send_due()
    await harness.settled(payment, "sent", tries=1)


async def test_unwritable_folder_is_retried_then_given_up(tmp_path: Path) -> None:
    payment, harness = ids.new("pay"), Harness(tmp_path)
    await harness.queue(counted(payment, pledge=harness.donor()))
    (tmp_path / "receipts").write_text("in the way")
    async with harness.manual_sender() as sender:
        for tries, wait_s in enumerate(RETRY_AFTER_S, start=1):
            assert await sender.send_due() == 1
            row = await harness.settled(payment, "due", tries=tries)
            assert row.due_at == harness.clock.now() + timedelta(seconds=wait_s)
            assert await sender.send_due() == 0
            harness.clock.move(wait_s)
        assert await sender.send_due() == 1
        row = await harness.settled(payment, "given_up", tries=len(RETRY_AFTER_S) + 1)
        assert "file" in row.reason
        harness.clock.move(30 * 24 * 3600)
        assert await sender.send_due() == 0


async def test_rate_limit_bounds_a_batch_and_loses_none(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    payments = [ids.new("pay") for _ in range(25)]
    await harness.queue(*(counted(payment, pledge=harness.donor()) for payment in payments))
    async with harness.manual_sender() as sender:
        assert [await sender.send_due() for _ in range(4)] == [10, 10, 5, 0]
    assert set(harness.files()) == set(payments)
    assert harness.pledges.calls == 3


async def test_crash_after_sending_repeats_an_identical_email(tmp_path: Path) -> None:
    payment = ids.new("pay")
    harness = Harness(tmp_path)
    pledge = harness.donor()
    await harness.queue(counted(payment, pledge=pledge))
    exit_code = await asyncio.to_thread(_run_until_killed, tmp_path, pledge)
    assert exit_code == -signal.SIGKILL
    first = harness.files()[payment]
    assert (await harness.receipts())[payment].status == "due"
    async with harness.running():
        await harness.settled(payment, "sent", tries=1)
    assert harness.files() == {payment: first}


def _run_until_killed(folder: Path, pledge: str) -> int:
    """A process of its own that sends what is due in `folder` and is killed before it records so."""
    script = """
import asyncio, sys
from pathlib import Path
from tests.notify.harness import Harness
async def main():
    stage = Harness(Path(sys.argv[1]))
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
