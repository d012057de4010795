"""Parts of a payment's life at Stripe, through signed webhooks and the sandbox (docs/payments-life.md)."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backbone.http.caller import sign_caller
from tests.payments.harness import SECRET, STRIPE_KEY, STRIPE_SECRET, Harness, a_drive, a_pledge, running
from tests.payments.stripe_events import dispute, intent_succeeded, metadata, refund, session_expired, signed
from tests.waiting import until

ADMIN = sign_caller(SECRET, partner="default", scopes=("admin",))
DAY_S = 86_400


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running(tmp_path) as harness:
        yield harness


async def deliver(harness: Harness, *events: dict[str, Any]) -> None:
    """Deliver events as Stripe does."""
    for event in events:
        body = json.dumps(event).encode()
        headers = signed(body, STRIPE_SECRET) | {"content-type": "application/json"}
        async with harness.http.post(f"{harness.url}/webhooks/stripe", data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()


async def payments(harness: Harness) -> list[dict[str, Any]]:
    """All payments of which money was captured, as an admin reads them."""
    reply = await harness.get("/v1/payments", "limit=100", ADMIN)
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = reply.json()["data"]
    return [each for each in found if each["captured"]["value"] != "0.00"]


async def at_sandbox(harness: Harness, path: str, body: dict[str, Any]) -> dict[str, Any]:
    async with harness.http.post(f"{harness.sandbox}/_sandbox/{path}", json=body) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
    return found


async def listed(harness: Harness, kind: str) -> list[dict[str, Any]]:
    """The sandbox's objects of a kind, newest first."""
    headers = {"Authorization": f"Bearer {STRIPE_KEY}"}
    async with harness.http.get(f"{harness.sandbox}/v1/{kind}?limit=100", headers=headers) as answer:
        found: list[dict[str, Any]] = (await answer.json())["data"]
    return found


async def test_embedded_checkout_is_paid(harness: Harness) -> None:
    drive = a_drive()
    pledge = a_pledge(drive, checkout_mode="embedded")
    await harness.publish_events(drive, pledge)

    async def secret() -> str | None:
        checkout = (await harness.checkout(pledge.pledge_id)).get("checkout")
        return checkout["client_secret"] if checkout else None

    await until(secret)
    (session,) = await listed(harness, "checkout/sessions")
    await harness.pay(f"{harness.sandbox}/c/pay/{session['id']}")
    await harness.status(pledge.pledge_id, "paid")
    assert await harness.agreed_books() == {"USD": "25.00"}


async def test_payment_that_succeeds_after_its_session_was_reported_as_expired_counts(
    harness: Harness,
) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await harness.publish_events(drive, pledge)
    url = await harness.opened(pledge.pledge_id)
    (session,) = await listed(harness, "checkout/sessions")
    await deliver(harness, session_expired(session["id"], session["metadata"]))
    await harness.status(pledge.pledge_id, "lapsed")
    await harness.pay(url)
    await harness.status(pledge.pledge_id, "paid")
    assert await harness.agreed_books() == {"USD": "25.00"}


async def test_second_capture_on_a_pledge_is_a_payment_of_its_own_and_is_refunded_by_itself(
    harness: Harness,
) -> None:
    drive = a_drive()
    pledge = await harness.donate(drive)
    await harness.status(pledge, "paid")
    again = intent_succeeded("pi_again", 2_500, metadata(None, pledge, drive.drive_id))
    await deliver(harness, again, again)

    async def two() -> list[dict[str, Any]] | None:
        found = await payments(harness)
        return found if len(found) == 2 else None

    found = await until(two)
    assert {each["pledge"] for each in found} == {pledge}
    assert await harness.books() == {"USD": "50.00"}
    await deliver(harness, refund("created", "re_again", "pi_again", 2_500, "succeeded"))
    await until(lambda: books_are(harness, "25.00"))
    assert sorted(each["status"] for each in await payments(harness)) == ["captured", "refunded"]


async def books_are(harness: Harness, value: str) -> bool:
    return await harness.books() == {"USD": value}


async def test_dispute_and_refund_before_their_payment_is_known_count_once_it_is(harness: Harness) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await harness.publish_events(drive, pledge)
    await harness.opened(pledge.pledge_id)
    opened = dispute("created", "dp_1", "pi_1", 1_000, "needs_response")
    await deliver(harness, opened, refund("created", "re_1", "pi_1", 500, "succeeded"))
    await deliver(harness, intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id)))
    await until(lambda: books_are(harness, "10.00"))
    (shown,) = await payments(harness)
    assert (shown["status"], shown["refunded"]["value"], shown["disputed"]["value"]) == (
        "disputed", "5.00", "10.00",
    )  # fmt: skip


@pytest.mark.parametrize(("outcome", "left"), [("won", "25.00"), ("lost", "15.00")])
async def test_partial_dispute_takes_its_part_and_returns_it_if_it_is_won(
    harness: Harness, outcome: str, left: str
) -> None:
    pledge = await harness.donate(a_drive())
    await harness.status(pledge, "paid")
    (intent,) = [each["id"] for each in await listed(harness, "payment_intents")]
    await at_sandbox(
        harness, "disputes", {"payment_intent": intent, "amount": 1_000, "status": "needs_response"}
    )
    await harness.status(pledge, "disputed")
    assert await harness.agreed_books() == {"USD": "15.00"}
    await at_sandbox(harness, "disputes", {"payment_intent": intent, "status": outcome})
    await harness.status(pledge, "paid" if outcome == "won" else "disputed")
    assert await harness.agreed_books() == {"USD": left}


async def test_funds_that_are_withdrawn_and_reinstated_leave_and_come_back(harness: Harness) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await harness.publish_events(drive, pledge)
    await deliver(harness, intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id)))
    told = [
        ("created", "warning_needs_response", (), "25.00"),
        ("funds_withdrawn", "needs_response", (-2_500,), "0.00"),
        ("funds_reinstated", "won", (-2_500, 2_500), "25.00"),
    ]
    for second, (kind, status, moves, left) in enumerate(told):
        event = dispute(kind, "dp_1", "pi_1", 2_500, status, moves=moves, at=int(time.time()) + second)
        await deliver(harness, event)
        await harness.drained()
        assert await harness.books() == {"USD": left}


async def test_webhooks_that_are_days_late_repeated_and_reversed_give_the_same_books(
    harness: Harness,
) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await harness.publish_events(drive, pledge)
    then = int(time.time()) - 3 * DAY_S
    about = metadata(None, pledge.pledge_id, drive.drive_id)
    events = [
        intent_succeeded("pi_1", 2_500, about) | {"created": then},
        refund("created", "re_1", "pi_1", 700, "pending") | {"created": then + 1},
        refund("updated", "re_1", "pi_1", 700, "succeeded") | {"created": then + 2},
        refund("updated", "re_1", "pi_1", 700, "failed") | {"created": then + 3},
        refund("created", "re_2", "pi_1", 300, "succeeded") | {"created": then + 4},
    ]
    for _ in range(3):
        await deliver(harness, *reversed(events))
    await until(lambda: books_are(harness, "22.00"))
    (shown,) = await payments(harness)
    assert (shown["status"], shown["refunded"]["value"]) == ("partly_refunded", "3.00")
