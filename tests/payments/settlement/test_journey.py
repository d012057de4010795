"""A journey with refunds, disputes and payouts: the ledger's fees and payouts are the sandbox's."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from backbone.http.caller import sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from services.payments.recording.ledger import BANK, FEES
from tests.payments.harness import SECRET, Harness, a_drive, running
from tests.payments.settlement.balances import account_balances
from tests.waiting import until


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running(tmp_path, stripe_settlement_s=0.2) as harness:
        yield harness


async def payouts(harness: Harness, query: str = "", scope: str = "admin", **headers: str) -> ServiceResponse:
    caller = sign_caller(SECRET, partner="default", scopes=(scope,))
    client = InProcessServiceClient(harness.service.app)
    return await client.request("GET", "/v1/payouts", headers=caller | headers, query=query)


async def at_sandbox(harness: Harness, path: str, body: dict[str, Any]) -> Any:
    async with harness.http.post(f"{harness.sandbox}/_sandbox/{path}", json=body) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def intent_of(harness: Harness, units: int) -> str:
    """The payment intent of that amount at the sandbox."""
    headers = {"authorization": "Bearer sk_test_stage"}
    async with harness.http.get(f"{harness.sandbox}/v1/payment_intents", headers=headers) as answer:
        found = (await answer.json())["data"]
    return next(each["id"] for each in found if each["amount"] == units)


async def sandbox_fees(harness: Harness) -> dict[str, Decimal]:
    async with harness.http.get(f"{harness.sandbox}/_sandbox/books") as answer:
        return {currency: Decimal(book["fees"]) for currency, book in (await answer.json()).items()}


async def test_fees_and_payouts_are_the_sandboxs(harness: Harness, tmp_path: Path) -> None:
    drive = a_drive()
    refunded = await harness.donate(drive, 2_500)
    await harness.donate(drive, 4_000)
    await harness.donate(drive, 1_000)
    await harness.donate(a_drive("JPY"), 7_000)
    await harness.status(refunded, "paid")
    assert (
        await harness.refund(refunded, "r1", {"amount": {"currency": "USD", "value": "5.00"}})
    ).status == 201
    await at_sandbox(
        harness, "disputes", {"payment_intent": await intent_of(harness, 4_000), "status": "won"}
    )
    lost = await intent_of(harness, 1_000)
    await at_sandbox(harness, "disputes", {"payment_intent": lost, "status": "needs_response"})
    books = await harness.agreed_books()

    async def fees_agree() -> bool:
        ledger = account_balances(tmp_path, FEES)
        return bool(ledger) and ledger == await sandbox_fees(harness)

    await until(fees_agree)
    assert account_balances(tmp_path, FEES)["USD"] == Decimal("1.03") + Decimal("1.46") + Decimal("15.59")
    failing = (await at_sandbox(harness, "payouts", {"currency": "USD", "outcome": "failed"}))["data"]
    made = (await at_sandbox(harness, "payouts", {}))["data"]

    async def reconciled() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = (await payouts(harness)).json()["data"]
        done = len(found) == len(failing) + len(made) and all(each["reconciled"] for each in found)
        return found if done and {each["status"] for each in found} == {"paid", "failed"} else None

    found = {each["id"]: each for each in await until(reconciled)}
    assert found[failing[0]["id"]]["amount"] == {"currency": "USD", "value": "41.92"}
    assert found[failing[0]["id"]]["payments"] == 3
    await until(lambda: account_balances(tmp_path, BANK).get("USD") == 0)
    assert account_balances(tmp_path, BANK)["JPY"] == Decimal(made[0]["amount"])
    assert await harness.agreed_books() == books

    first = (await payouts(harness, "limit=1")).json()
    rest = (await payouts(harness, f"limit=10&after={first['next']}")).json()
    assert [each["id"] for each in first["data"] + rest["data"]] == list(found)
    table = await payouts(harness, "limit=1", accept="text/csv")
    assert table.body.decode().splitlines()[0].startswith("id,currency,amount,arrival_date,status,reconciled")
    assert len(table.body.decode().splitlines()) == 2


@pytest.mark.parametrize("scope", ["ledger", "refunds"])
async def test_payouts_are_for_admins(harness: Harness, scope: str) -> None:
    assert (await payouts(harness, scope=scope)).status == 403
    assert json.loads((await payouts(harness)).body) == {"data": [], "next": None}


@pytest.mark.parametrize("query", ["after=x", "after=po_%00", "limit=0", "limit=101", "limit=x"])
async def test_bad_pages_of_payouts_are_refused(harness: Harness, query: str) -> None:
    assert (await payouts(harness, query)).status == 422
    assert (await payouts(harness, "after=po_unknown")).json() == {"data": [], "next": None}
