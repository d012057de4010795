"""Disputes through payments and the sandbox: the ledger equals Stripe's balance, whatever webhooks do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.payments.harness import Harness, a_drive, running

Step = tuple[str, dict[str, Any]]
LIVES: list[tuple[str | None, list[Step], str]] = [
    ("10.00", [("needs_response", {"amount": 2_500})], "-10.00"),
    ("10.00", [("needs_response", {"amount": 2_500}), ("lost", {})], "0.00"),
    ("10.00", [("needs_response", {"amount": 2_500}), ("won", {})], "15.00"),
    (None, [("won", {}), ("lost", {})], "0.00"),
    (None, [("needs_response", {}), ("under_review", {}), ("won", {})], "25.00"),
    (None, [("warning_needs_response", {}), ("warning_closed", {})], "25.00"),
    ("5.00", [("warning_needs_response", {}), ("needs_response", {})], "0.00"),
    (None, [("prevented", {"case_type": "resolution"})], "0.00"),
    (None, [("prevented", {"case_type": "block"})], "25.00"),
    (None, [("needs_response", {"amount": 2_300, "currency": "eur", "withdrawn": 2_490})], "0.10"),
]
"""The amount refunded, the dispute's statuses, and what is left of 25.00."""


async def dispute(harness: Harness, intent: str, status: str, details: dict[str, Any]) -> None:
    fields = {"payment_intent": intent, "status": status} | details
    async with harness.http.post(f"{harness.sandbox}/_sandbox/disputes", json=fields) as answer:
        assert answer.status == 200, await answer.text()


async def live(harness: Harness, n: int, refunded: str | None, steps: list[Step]) -> None:
    """Donate 25.00, refund part of it, and dispute it."""
    pledge = await harness.donate(a_drive(slug=f"drive-{n}"))
    await harness.status(pledge, "paid")
    if refunded is not None:
        amount = {"amount": {"currency": "USD", "value": refunded}}
        assert (await harness.refund(pledge, f"refund-{n}", amount)).status == 201
    intent = await intent_of(harness, pledge)
    for status, details in steps:
        await dispute(harness, intent, status, details)


async def intent_of(harness: Harness, pledge: str) -> str:
    headers = {"Authorization": "Bearer sk_test_stage"}
    async with harness.http.get(f"{harness.sandbox}/v1/payment_intents?limit=100", headers=headers) as answer:
        found = (await answer.json())["data"]
    return next(str(each["id"]) for each in found if each["metadata"].get("ataa_pledge") == pledge)


@pytest.mark.parametrize(("refunded", "steps", "left"), LIVES)
async def test_the_ledger_equals_stripes_balance(
    tmp_path: Path, refunded: str | None, steps: list[Step], left: str
) -> None:
    async with running(tmp_path) as harness:
        await live(harness, 1, refunded, steps)
        assert await harness.agreed_books() == {"USD": left}


async def test_the_ledger_equals_the_balance_under_repeated_reordered_late_and_lost_webhooks(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as harness:
        await harness.faults(duplicate=3, reorder=True, delay_ms=300, drop_rate=0.2)
        await asyncio.gather(*(live(harness, n, *each[:2]) for n, each in enumerate(LIVES)))
        cents = sum(round(float(left) * 100) for _, _, left in LIVES)
        assert await harness.agreed_books() == {"USD": f"{cents / 100:.2f}"}
