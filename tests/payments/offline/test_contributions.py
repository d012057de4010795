"""Hours and goods: in the sums once a second key approves them, exactly, and never part of money."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.offline.quantities import decimal, thousandths
from tests.payments.approval_api import STAR, ApprovalApi, open_api

CONTRIBUTIONS = "/v1/drives/winter/contributions"
HOURS = {"kind": "hours", "quantity": "12.5", "unit": "hour", "label": "Packing", "evidence": "rota"}


@pytest.fixture(params=["sqlite", "postgresql"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApprovalApi]:
    async with open_api(request.param, tmp_path) as api:
        yield api


async def recorded(api: ApprovalApi, **other: Any) -> str:
    reply = await api.ask("POST", CONTRIBUTIONS, HOURS | other)
    assert (reply.status, reply.json()["status"]) == (201, "pending"), reply.body
    return str(reply.json()["id"])


async def approved(api: ApprovalApi, **other: Any) -> str:
    contribution = await recorded(api, **other)
    reply = await api.ask("POST", f"/v1/contributions/{contribution}/approve", key="key_b")
    assert (reply.status, reply.json()["status"]) == (200, "approved")
    return contribution


async def sums(api: ApprovalApi) -> list[tuple[str, str, str, int]]:
    reply = await api.ask("GET", CONTRIBUTIONS, partner="anybody", scopes=())
    assert reply.headers["cache-control"].startswith("public")
    return [tuple(each.values()) for each in reply.json()["data"]]


async def test_approved_contributions_are_summed_by_kind_and_unit(api: ApprovalApi) -> None:
    await approved(api, creator="star")
    await approved(api, quantity="0.125")
    await approved(api, kind="goods", quantity="40", unit="blanket")
    await recorded(api, quantity="1000")
    rejected = await recorded(api, quantity="1000")
    reply = await api.ask("POST", f"/v1/contributions/{rejected}/reject", {"reason": "a mistake"})
    assert reply.json()["status"] == "rejected"
    assert await sums(api) == [("goods", "blanket", "40", 1), ("hours", "hour", "12.625", 2)]
    assert (await api.balances(), await api.announced()) == ({}, [])
    listed = (await api.ask("GET", "/v1/contributions", query="drive=winter&status=approved")).json()["data"]
    assert [each["quantity"] for each in listed] == ["40", "0.125", "12.5"]
    assert listed[2]["creator"] == STAR


async def test_the_key_that_recorded_a_contribution_cannot_approve_it(api: ApprovalApi) -> None:
    contribution = await recorded(api)
    reply = await api.ask("POST", f"/v1/contributions/{contribution}/approve")
    assert (reply.status, reply.json()["type"]) == (409, "/problems/second-approver-needed")
    stranger = await api.ask("POST", f"/v1/contributions/{contribution}/approve", partner="x", key="key_x")
    assert (stranger.status, stranger.json()["type"]) == (403, "/problems/not-your-drive")
    assert await sums(api) == []


@pytest.mark.parametrize(
    "wrong",
    [
        *({"quantity": quantity} for quantity in ("0", "0.000", "-1", "1e3", "1,5", "01", ".5", "1.", "٣")),
        *({"quantity": quantity} for quantity in ("1.2345", "1000000000", "1" * 5_000, 5, " 1", "1\n")),
        *({"unit": unit} for unit in ("", "x" * 41, "nul \x00")),
        {"kind": "money"}, {"label": ""}, {"creator": "nobody"}, {"amount": "1"},
    ],
    ids=lambda wrong: repr(wrong)[:30],
)  # fmt: skip
async def test_what_cannot_be_recorded_is_refused(api: ApprovalApi, wrong: dict[str, Any]) -> None:
    reply = await api.ask("POST", CONTRIBUTIONS, HOURS | wrong)
    assert (reply.status, reply.json()["type"]) == (422, "/problems/invalid-request")
    assert (await api.ask("GET", "/v1/contributions")).json()["data"] == []


async def test_a_repeated_idempotency_key_records_one_contribution(api: ApprovalApi) -> None:
    first = await api.ask("POST", CONTRIBUTIONS, HOURS, once="k")
    again = await api.ask("POST", CONTRIBUTIONS, HOURS, once="k")
    assert again.body == first.body
    assert len((await api.ask("GET", "/v1/contributions")).json()["data"]) == 1


@given(st.decimals(min_value="0.001", max_value="999999999.999", places=3))
def test_quantities_are_exact(quantity: Decimal) -> None:
    assert Decimal(decimal(thousandths(str(quantity)))) == quantity
    assert thousandths(decimal(thousandths(str(quantity)))) == thousandths(str(quantity))
