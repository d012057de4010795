"""Payments that need 3-D Secure or settle late: counted when the money is captured, and not before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backbone.contracts import PledgeMade
from tests.payments.harness import Harness, a_drive, a_pledge, running
from tests.waiting import until


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running(tmp_path) as harness:
        yield harness


async def a_checkout(harness: Harness) -> tuple[PledgeMade, str]:
    drive = a_drive()
    pledge = a_pledge(drive)
    await harness.publish_events(drive, pledge)
    return pledge, await harness.opened(pledge.pledge_id)


async def authenticate(harness: Harness, url: str, outcome: str) -> dict[str, Any]:
    async with harness.http.post(f"{url}/authenticate", json={"outcome": outcome}) as answer:
        found: dict[str, Any] = await answer.json()
    return found


async def types_stored(harness: Harness) -> set[str]:
    headers = {"Authorization": "Bearer sk_test_stage"}
    url = f"{harness.sandbox}/v1/events?limit=100"
    async with harness.http.get(url, headers=headers) as answer:
        return {each["type"] for each in (await answer.json())["data"]}


async def test_a_card_with_3d_secure_is_paid_after_the_authentication(harness: Harness) -> None:
    pledge, url = await a_checkout(harness)
    await harness.pay(url, "4000002760003184")
    assert (await harness.checkout(pledge.pledge_id))["status"] is None
    assert (await authenticate(harness, url, "fail"))["status"] == "open"
    await harness.drained()
    assert (await harness.checkout(pledge.pledge_id))["checkout"]["url"] == url  # it can still be paid
    await harness.pay(url, "4000000000003220")
    await authenticate(harness, url, "succeed")
    await harness.status(pledge.pledge_id, "paid")
    assert await harness.agreed_books() == {"USD": "25.00"}


async def test_a_bank_debit_counts_once_it_has_settled(harness: Harness) -> None:
    pledge, url = await a_checkout(harness)
    assert (await harness.pay(url, "000123456789"))["payment_status"] == "unpaid"
    await harness.status(pledge.pledge_id, "paid")
    assert "checkout.session.async_payment_succeeded" in await types_stored(harness)
    assert await harness.agreed_books() == {"USD": "25.00"}
    captured = [each for each in harness.published if each.status == "captured"]
    assert len({each.payment_id for each in captured}) == 1


async def test_a_pledge_whose_bank_debit_fails_lapses(harness: Harness) -> None:
    pledge, url = await a_checkout(harness)
    await harness.pay(url, "000111111116")
    await harness.status(pledge.pledge_id, "lapsed")
    await harness.drained()
    assert await harness.books() == {}
    assert (await harness.checkout(pledge.pledge_id))["checkout"] is None


@pytest.mark.parametrize("fault", [{"duplicate": 3, "reorder": True}, {"drop_rate": 1}])
async def test_a_bank_debit_counts_once_whatever_becomes_of_the_webhooks(
    harness: Harness, fault: dict[str, Any]
) -> None:
    drive = a_drive()
    good, bad = a_pledge(drive), a_pledge(drive)
    await harness.faults(**fault)
    await harness.publish_events(drive, good, bad)
    await harness.pay(await harness.opened(good.pledge_id), "000123456789")
    await harness.pay(await harness.opened(bad.pledge_id), "000111111116")
    await harness.status(good.pledge_id, "paid")
    await harness.status(bad.pledge_id, "lapsed")
    assert await until(harness.agreed_books) == {"USD": "25.00"}
