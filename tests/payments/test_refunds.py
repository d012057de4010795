"""Refunds through the API and Stripe's webhooks about them: none is lost, none counts twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backbone.http.caller import sign_caller
from backbone.http.service_client import InProcessServiceClient
from tests.payments.harness import SECRET, Harness, a_drive, a_pledge, running
from tests.waiting import until

FAILS_A_REFUND = "4000000000005126"


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running(tmp_path) as harness:
        yield harness


def usd(value: str) -> dict[str, Any]:
    return {"amount": {"currency": "USD", "value": value}}


async def test_parts_are_refunded_until_nothing_is_left(harness: Harness) -> None:
    pledge = await harness.donate(a_drive(), 2_500)
    await harness.status(pledge, "paid")
    first = await harness.refund(pledge, "one", usd("10.00"))
    assert first.status == 201
    assert first.json()["status"] == "succeeded"
    assert first.json()["amount"] == {"currency": "USD", "value": "10.00"}
    again = await harness.refund(pledge, "one", usd("10.00"))
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    too_much = await harness.refund(pledge, "two", usd("15.01"))
    assert (too_much.status, too_much.json()["type"]) == (409, "/problems/refund-exceeds-payment")
    rest = await harness.refund(pledge, "three")
    assert rest.json()["amount"]["value"] == "15.00"
    assert (await harness.refund(pledge, "four")).status == 409
    await harness.status(pledge, "refunded")
    await harness.drained()
    assert await harness.books() == {"USD": "0.00"} == await harness.sandbox_books()


async def test_refunds_at_the_same_time_never_exceed_what_was_paid(harness: Harness) -> None:
    pledge = await harness.donate(a_drive(), 2_500)
    await harness.status(pledge, "paid")
    replies = await asyncio.gather(*(harness.refund(pledge, f"k{n}", usd("10.00")) for n in range(5)))
    assert sorted(reply.status for reply in replies) == [201, 201, 409, 409, 409]
    await harness.drained()
    assert await harness.books() == {"USD": "5.00"} == await harness.sandbox_books()


async def test_an_impossible_refund_is_refused_and_stores_nothing(harness: Harness) -> None:
    drive = a_drive()
    unpaid = a_pledge(drive)
    await harness.publish_events(drive, unpaid)
    await harness.opened(unpaid.pledge_id)
    assert (await harness.refund(unpaid.pledge_id, "k")).status == 409
    pledge = await harness.donate(drive)
    await harness.status(pledge, "paid")
    assert (await harness.refund("plg_01j00000000000000000000000", "k")).status == 404
    assert (await harness.refund(pledge, "k", partner="another")).status == 403
    euros = await harness.refund(pledge, "k", {"amount": {"currency": "EUR", "value": "1.00"}})
    assert euros.status == 422
    assert [each["pointer"] for each in euros.json()["errors"]] == ["/amount/currency"]
    assert (
        await harness.refund(pledge, "k", {"amount": {"currency": "USD", "value": "1.000"}})
    ).status == 422
    assert (await harness.refund(pledge, "k", {"reason": "nul \x00"})).status == 422
    assert (await harness.refund(pledge, "k", usd("1.00"))).status == 201
    reused = await harness.refund(pledge, "k", usd("2.00"))
    assert reused.status == 422
    assert [each["pointer"] for each in reused.json()["errors"]] == ["/header/idempotency-key"]
    path = f"/v1/pledges/{pledge}/refunds"
    assert (await harness.ask("POST", path, {}, **{"idempotency-key": "k"})).status == 403


async def test_a_test_key_cannot_refund_a_live_drive(harness: Harness) -> None:
    live, rehearsed = await harness.donate(a_drive()), await harness.donate(a_drive(test=True))
    for pledge, answer in ((live, 403), (rehearsed, 201)):
        await harness.status(pledge, "paid")
        assert (await harness.refund(pledge, f"of-{pledge}", mode="test")).status == answer
    await harness.drained()
    assert await harness.books() == {"USD": "25.00"} == await harness.sandbox_books()


NEIGHBOUR = (403, "/problems/not-your-drive")


async def test_only_the_pledges_maker_its_drives_owner_and_admins_refund_it(harness: Harness) -> None:
    """With and without a stored owner of the drive; without one, pledges is asked."""
    told, untold = a_drive(partner="charity"), a_drive()
    harness.pledges.owners[untold.drive_id] = "charity"
    for drive in (told, untold):
        pledge = await harness.donate(drive, partner="shop")
        await harness.status(pledge, "paid")
        refused = await harness.refund(pledge, pledge, usd("1.00"), partner="neighbour")
        assert (refused.status, refused.json()["type"]) == NEIGHBOUR
        for partner, scopes in (("shop", "refunds"), ("charity", "refunds"), ("default", "admin")):
            reply = await harness.refund(pledge, pledge, usd("1.00"), partner=partner, scopes=(scopes,))
            assert (reply.status, reply.headers.get("idempotency-replayed")) == (201, None)
        assert (await harness.refund(pledge, f"j{pledge}", partner="default")).status == 403
    assert harness.pledges.drives_asked == 3
    await harness.drained()
    assert await harness.books() == {"USD": "44.00"} == await harness.sandbox_books()


async def test_only_its_maker_refunds_a_pledge_while_the_drives_owner_is_unknown(
    harness: Harness,
) -> None:
    pledge = await harness.donate(a_drive(), partner="shop")
    await harness.status(pledge, "paid")
    refused = await harness.refund(pledge, "k", partner="charity")
    assert (refused.status, refused.json()["type"]) == NEIGHBOUR
    harness.pledges.app.state.internal_secret = "another"  # pledges refuses the request
    assert (await harness.refund(pledge, "k", partner="charity")).status == 503
    assert (await harness.refund(pledge, "k", partner="shop")).status == 201


async def test_an_event_of_an_older_pledges_keeps_the_drives_owner(harness: Harness) -> None:
    drive = a_drive(partner="charity")
    pledge = await harness.donate(drive, partner="shop")
    await harness.publish_events(drive.model_copy(update={"version": 2, "partner": None}))
    await harness.status(pledge, "paid")
    await harness.drained()
    assert (await harness.refund(pledge, "k", partner="charity")).status == 201
    assert harness.pledges.drives_asked == 0


async def test_a_stored_reply_is_replayed_only_to_a_key_that_may_refund(harness: Harness) -> None:
    pledge = await harness.donate(a_drive())
    await harness.status(pledge, "paid")
    assert (await harness.refund(pledge, "k", usd("1.00"))).status == 201
    again = await harness.refund(pledge, "k", usd("1.00"), mode="test")
    assert (again.status, again.json()["type"]) == (403, "/problems/forbidden")


async def test_without_a_body_all_that_is_left_is_refunded(harness: Harness) -> None:
    pledge = await harness.donate(a_drive(), 2_500)
    await harness.status(pledge, "paid")
    assert (await harness.refund(pledge, "part", usd("10.00"))).status == 201
    path, caller = (
        f"/v1/pledges/{pledge}/refunds",
        sign_caller(SECRET, partner="default", scopes=("refunds",)),
    )
    for body in ([], "", 0, False):
        assert (await harness.ask("POST", path, body, **caller, **{"idempotency-key": "odd"})).status == 422
    null = await InProcessServiceClient(harness.service.app).request(
        "POST",
        path,
        headers={"content-type": "application/json", **caller, "idempotency-key": "odd"},
        body=b"null",
    )
    assert null.status == 422
    rest = await harness.ask("POST", path, **caller, **{"idempotency-key": "rest"})
    assert (rest.status, rest.json()["amount"]["value"]) == (201, "15.00")
    again = await harness.ask("POST", path, **caller, **{"idempotency-key": "rest"})
    assert (again.body, again.headers["idempotency-replayed"]) == (rest.body, "true")


async def test_a_refund_that_fails_later_counts_nothing(harness: Harness) -> None:
    pledge = await harness.donate(a_drive(), 2_500, FAILS_A_REFUND)
    await harness.status(pledge, "paid")
    assert (await harness.refund(pledge, "k")).json()["status"] == "succeeded"
    await harness.status(pledge, "refunded")
    await harness.status(pledge, "paid")
    await harness.drained()
    assert await harness.books() == {"USD": "25.00"} == await harness.sandbox_books()


@pytest.mark.parametrize(
    "fault",
    [
        {"error_rate": 1},
        {"error_after_rate": 1},
        {"timeout_after_success_rate": 1},
    ],
)
async def test_a_refund_of_unknown_outcome_is_pending_and_made_exactly_once(
    harness: Harness, fault: dict[str, float]
) -> None:
    pledge = await harness.donate(a_drive(), 2_500)
    await harness.status(pledge, "paid")
    await harness.drained()
    await harness.faults(**fault, drop_rate=1)
    reply = await harness.refund(pledge, "k", usd("10.00"))
    assert reply.status == 201
    assert reply.json()["status"] == "pending"
    await harness.faults()
    await harness.status(pledge, "partly_refunded")
    await harness.drained()
    assert await harness.books() == {"USD": "15.00"} == await harness.sandbox_books()
    assert (await harness.refund(pledge, "k", usd("10.00"))).body == reply.body


async def test_a_refund_made_in_stripes_dashboard_is_counted(harness: Harness) -> None:
    pledge = await harness.donate(a_drive(), 2_500)
    await harness.status(pledge, "paid")
    intent = await until(lambda: _intent(harness, pledge))
    headers = {"Authorization": "Bearer sk_test_stage"}
    form = {"payment_intent": intent, "amount": "700"}
    async with harness.http.post(f"{harness.sandbox}/v1/refunds", data=form, headers=headers) as answer:
        assert answer.status == 200
    await harness.status(pledge, "partly_refunded")
    assert (await harness.refund(pledge, "k", usd("18.01"))).status == 409
    await harness.drained()
    assert await harness.books() == {"USD": "18.00"} == await harness.sandbox_books()


async def _intent(harness: Harness, pledge: str) -> str | None:
    headers = {"Authorization": "Bearer sk_test_stage"}
    async with harness.http.get(f"{harness.sandbox}/v1/checkout/sessions", headers=headers) as answer:
        sessions = (await answer.json())["data"]
    found: list[str] = [each["payment_intent"] for each in sessions if each["client_reference_id"] == pledge]
    return found[0] if found else None
