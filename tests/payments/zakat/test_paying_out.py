"""A disbursement is paid from one fund, and never more than is in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from backbone.contracts.pledges import Beneficiary
from services.payments.processor import Movement
from services.payments.settlement.record import record_movements
from services.payments.tables import POSTINGS
from tests.payments.approval_api import ApprovalApi, open_api
from tests.payments.disbursements.test_disbursements import EXCEEDS, a_payment, approve, take_back
from tests.payments.harness import a_pledge
from tests.payments.stripe_events import intent_succeeded, metadata, refund

BENEFICIARIES = [Beneficiary(name="Relief", share_bps=7_000), Beneficiary(name="Homes", share_bps=3_000)]


@pytest.fixture(params=["sqlite", "postgresql"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApprovalApi]:
    async with open_api(request.param, tmp_path, beneficiaries=BENEFICIARIES) as api:
        yield api


async def give(api: ApprovalApi, units: int, intent: str, purpose: str | None = "zakat") -> None:
    pledge = a_pledge(api.drive, units, purpose=purpose)
    await api.books.consume(pledge)
    ours = metadata(None, pledge.pledge_id, api.drive.drive_id)
    await api.books.apply([intent_succeeded(intent, units, ours)])


async def record(
    api: ApprovalApi, units: int, name: str = "Relief", fund: str | None = "zakat"
) -> tuple[int, str]:
    body = a_payment(api, units, name) | ({} if fund is None else {"fund": fund})
    reply = await api.ask("POST", "/v1/drives/winter/disbursements", body)
    return reply.status, reply.json()["id" if reply.status == 201 else "type"]


async def pay(api: ApprovalApi, units: int, name: str = "Relief", fund: str | None = "zakat") -> str:
    status, paid = await record(api, units, name, fund)
    assert status == 201
    assert await approve(api, paid) == (200, "approved")
    return paid


async def test_zakat_is_paid_out_only_where_the_request_says_so(api: ApprovalApi) -> None:
    await give(api, 10_000, "pi_1")
    body = a_payment(api, 100)
    for general in (body, body | {"fund": "general"}):
        reply = await api.ask("POST", "/v1/drives/winter/disbursements", general)
        assert (reply.status, reply.json()["detail"]) == (
            409,
            "0.00 USD is left in the drive's general fund.",
        )
    await pay(api, 7_000)
    reply = await api.ask("POST", "/v1/drives/winter/disbursements", body | {"fund": "zakat"})
    assert (reply.status, reply.json()["detail"]) == (409, "0.00 USD is owed.")
    await pay(api, 3_000, "Homes")


async def test_no_more_is_paid_from_a_fund_than_is_in_it(api: ApprovalApi) -> None:
    await give(api, 1_000, "pi_1")
    await give(api, 9_000, "pi_2", None)
    assert await record(api, 1_001) == EXCEEDS
    await pay(api, 1_000)
    assert await record(api, 1, "Homes") == EXCEEDS
    assert await record(api, 6_001, fund="general") == EXCEEDS
    await pay(api, 6_000, fund="general")
    await pay(api, 3_000, "Homes", None)
    balances = await api.balances()
    paid = {name: balances[name] for name in ("disbursed", "disbursed_zakat", "beneficiary_payable_zakat")}
    assert paid == {"disbursed": -9_000, "disbursed_zakat": -1_000, "beneficiary_payable_zakat": 1_000}


async def test_a_reversal_returns_to_its_fund(api: ApprovalApi) -> None:
    await give(api, 1_000, "pi_1")
    await give(api, 1_000, "pi_2", None)
    paid = await pay(api, 1_000)
    assert await take_back(api, paid, "key_a") == (200, "reversal_requested")
    assert await record(api, 1) == EXCEEDS
    assert await take_back(api, paid, "key_b") == (200, "reversed")
    assert not {name for name in await api.balances() if name.startswith(("disbursed", "beneficiary"))}
    async with api.books.database.reading() as session:
        rows = (await session.execute(select(POSTINGS).where(POSTINGS.c.cause.like("dsb_%")))).all()
    assert [(row.debit, row.credit) for row in rows] == [
        ("beneficiary_payable_zakat", "disbursed_zakat"),
        ("disbursed_zakat", "beneficiary_payable_zakat"),
    ]
    await pay(api, 1_000)
    (shown, _) = (await api.ask("GET", "/v1/drives/winter/disbursements", scopes=())).json()["data"]
    assert shown["fund"] == "zakat"


async def test_what_leaves_zakat_is_not_there_to_be_paid(api: ApprovalApi) -> None:
    await give(api, 1_000, "pi_1")
    await give(api, 9_000, "pi_2", None)
    now = api.books.clock.now()
    movement = Movement("txn_1", "charge", "ch_1", "pi_1", 1_000, 30, "USD", None, now, now)
    async with api.books.database.transaction() as session:
        await record_movements(session, [movement], now)
    await api.books.apply([refund("created", "re_1", "pi_1", 200, "succeeded")])
    assert await record(api, 771) == EXCEEDS
    status, waiting = await record(api, 770)
    assert status == 201
    await api.books.apply([refund("created", "re_2", "pi_1", 1, "pending")])
    assert await approve(api, waiting) == EXCEEDS
    await pay(api, 769)


async def test_approvals_at_the_same_time_do_not_overdraw_zakat(api: ApprovalApi) -> None:
    await give(api, 1_000, "pi_1")
    await give(api, 9_000, "pi_2", None)
    recorded = [await record(api, 600, name) for name in ("Relief", "Homes")]
    results = await asyncio.gather(*(approve(api, each) for _, each in recorded))
    assert sorted(results, key=str) == sorted([(200, "approved"), EXCEEDS], key=str)
    assert (await api.balances())["disbursed_zakat"] == -600


@pytest.mark.parametrize("fund", ["", "Zakat", "sadaqah", None, 1, ["zakat"]])
async def test_an_unknown_fund_is_refused(api: ApprovalApi, fund: Any) -> None:
    await give(api, 1_000, "pi_1")
    reply = await api.ask("POST", "/v1/drives/winter/disbursements", a_payment(api, 100) | {"fund": fund})
    assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, "/fund")
