"""Refunds of a payment, also of a held one, through the processor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backbone.http.caller import sign_caller
from backbone.http.service_client import ServiceResponse
from tests.payments.harness import SECRET, Harness, a_drive, a_pledge, running


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running(tmp_path) as harness:
        yield harness


ADMIN = sign_caller(SECRET, partner="default", scopes=("admin",), key_id="key_admin")
OWNER = sign_caller(SECRET, partner="charity", scopes=("refunds", "ledger"), key_id="key_owner")


async def refunded(
    harness: Harness, payment: str, key: str, body: Any = None, caller: dict[str, str] = OWNER
) -> ServiceResponse:
    path = f"/v1/payments/{payment}/refunds"
    return await harness.ask("POST", path, {} if body is None else body, **caller, **{"idempotency-key": key})


async def test_held_payment_is_returned_and_names_who_decided(harness: Harness) -> None:
    unknown = a_drive(partner="charity")
    pledge = a_pledge(unknown)  # its drive is not announced: the money is held
    await harness.publish_events(pledge)
    await harness.pay(await harness.opened(pledge.pledge_id))
    await harness.status(pledge.pledge_id, "paid")
    (held,) = (await harness.get("/v1/payments", "held=true", ADMIN)).json()["data"]
    assert held["held"]["reason"] == "unknown_drive"
    assert (await refunded(harness, held["id"], "k")).status == 403
    part = {"amount": {"currency": "USD", "value": "5.00"}, "reason": "wrong address"}
    first = await refunded(harness, held["id"], "k", part, ADMIN)
    assert (first.status, first.json()["status"]) == (201, "succeeded")
    again = await refunded(harness, held["id"], "k", part, ADMIN)
    assert (again.body, again.headers["idempotency-replayed"]) == (first.body, "true")
    assert (await refunded(harness, held["id"], "rest", None, ADMIN)).json()["amount"]["value"] == "20.00"
    assert (await refunded(harness, held["id"], "more", None, ADMIN)).status == 409
    shown = (await harness.get(f"/v1/payments/{held['id']}", "", ADMIN)).json()
    assert [(one["kind"], one["by"]["key"], one["note"]) for one in shown["decisions"]] == [
        ("refund", "key_admin", "wrong address"),
        ("refund", "key_admin", None),
    ]
    assert shown["decisions"][0]["refund"] == first.json()["id"]
    assert (shown["status"], shown["refunded"]["value"]) == ("refunded", "25.00")
    assert await harness.agreed_books() == {"USD": "0.00"}


async def test_refunds_of_a_pledge_and_of_its_payment_never_exceed_what_was_paid(harness: Harness) -> None:
    pledge = await harness.donate(a_drive(partner="charity"), 2_500)
    await harness.status(pledge, "paid")
    (payment,) = (await harness.get("/v1/payments", "", OWNER)).json()["data"]
    ten = {"amount": {"currency": "USD", "value": "10.00"}}
    replies = await asyncio.gather(
        *(refunded(harness, payment["id"], f"p{n}", ten) for n in range(3)),
        *(harness.refund(pledge, f"k{n}", ten) for n in range(3)),
    )
    assert sorted(reply.status for reply in replies) == [201, 201, 409, 409, 409, 409]
    shown = (await harness.get(f"/v1/payments/{payment['id']}", "", OWNER)).json()
    assert len(shown["decisions"]) == 2
    assert await harness.agreed_books() == {"USD": "5.00"}


async def test_impossible_refunds_of_a_payment_are_refused(harness: Harness) -> None:
    unpaid = a_pledge(a_drive(partner="charity"))
    pledge = await harness.donate(a_drive(partner="charity"))
    await harness.publish_events(unpaid)
    await harness.status(pledge, "paid")
    (payment,) = (await harness.get("/v1/payments", "", OWNER)).json()["data"]
    neighbour = sign_caller(SECRET, partner="neighbour", scopes=("refunds",))
    reader = sign_caller(SECRET, partner="charity", scopes=("ledger",))
    test_key = sign_caller(SECRET, partner="charity", scopes=("refunds",), mode="test")
    for caller in (neighbour, reader, test_key):
        assert (await refunded(harness, payment["id"], "k", None, caller)).status == 403
    for body in ({"amount": {"currency": "EUR", "value": "1.00"}}, {"reason": "\x00"}, {"amount": 1}, []):
        assert (await refunded(harness, payment["id"], "k", body)).status == 422, body
    for unknown in ("pay_00000000000000000000000000", "pay_\x00", pledge):
        assert (await refunded(harness, unknown, "k")).status == 404
    path = f"/v1/payments/{payment['id']}/refunds"
    assert (await harness.ask("POST", path, {}, **OWNER)).json()[
        "type"
    ] == "/problems/idempotency-key-missing"
    assert await harness.agreed_books() == {"USD": "25.00"}
