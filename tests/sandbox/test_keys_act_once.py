"""A request that is repeated under faults executes once for its idempotency key."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox import checkout, payment_intents
from sandbox.account import Account
from sandbox.api import StripeApi
from sandbox.api_call import ApiCall
from sandbox.events import EventLog
from sandbox.faults import FaultControl, Faults
from sandbox.http_server import Reply, Request
from sandbox.journal import Journal
from tests.sandbox.harness import Donor, Receiver
from tests.waiting import until

CALM, BEFORE, AFTER = Faults(), Faults(error_rate=1), Faults(error_after_rate=1)
LOST = Faults(timeout_after_success_rate=1)


def paid(account: Account, amount: int) -> str:
    price = {"currency": "usd", "unit_amount": str(amount), "product_data": {"name": "Winter"}}
    line = {"quantity": "1", "price_data": price}
    session_params = {"mode": "payment", "line_items": {"0": line}, "success_url": "http://example.org/"}
    session = checkout.create_session(account, ApiCall(session_params))["id"]
    return str(payment_intents.pay(account, session, "4242424242424242", None, None).session.payment)


async def refund(api: StripeApi, payment: str, key: str, amount: int) -> Reply:
    headers = {"authorization": "Bearer k", "idempotency-key": key}
    form = f"payment_intent={payment}&amount={amount}".encode()
    return await api.answer(Request("POST", "/v1/refunds", headers, form, True))


async def repeat(steps: list[tuple[str, int, Faults]]) -> None:
    """Make refunds one after the other and compare the responses with a model."""
    journal, faults = Journal(None), FaultControl()
    account = Account(journal, EventLog(journal), "")
    api, payment = StripeApi(account, "k", faults), paid(account, 100)
    kept: dict[str, tuple[int, Reply]] = {}
    left = 100
    for key, amount, fault in steps:
        faults.replace(fault)
        reply = await refund(api, payment, key, amount)
        if fault is BEFORE:
            assert reply.status == 500
        elif key in kept and kept[key][0] != amount:
            assert json.loads(reply.body)["error"]["type"] == "idempotency_error"
        elif key in kept:
            assert (reply.status, reply.body) == (kept[key][1].status, kept[key][1].body)
            assert reply.headers["Idempotent-Replayed"] == "true"
        else:
            kept[key] = (amount, reply)
            left -= amount if amount <= left else 0
            assert reply.held == (fault is LOST)
        assert account.refundable(account.payment(payment)) == left
    journal.close()


STEP = st.tuples(
    st.sampled_from("abcd"), st.sampled_from([10, 40, 70]), st.sampled_from([CALM, BEFORE, AFTER, LOST])
)


@given(st.lists(STEP, max_size=20))
@settings(max_examples=60, deadline=None)
def test_idempotency_key_executes_once_under_every_fault(steps: list[tuple[str, int, Faults]]) -> None:
    asyncio.run(repeat(steps))


async def donate_with_retries(donor: Donor, n: int) -> None:
    """Retry as payments does: the same key until there is a response, a new key after a stored error."""
    session_params, attempt = donor.session_params(100 + n), 1
    while True:
        options: Any = {"idempotency_key": f"pay_{n}.{attempt}"}
        try:
            session = await donor.stripe.v1.checkout.sessions.create_async(session_params, options)
        except stripe.APIError as error:
            attempt += "Stripe-Should-Retry" in (error.headers or {})
            continue
        assert (await donor.pay(session.id))["payment_status"] == "paid"
        return


async def test_every_event_arrives_or_is_listed_under_all_faults(donor: Donor, receiver: Receiver) -> None:
    unreliable = {"error_rate": 0.1, "error_after_rate": 0.1, "drop_rate": 0.1}
    await donor.faults(duplicate=3, reorder=True, delay_ms=400, **unreliable)
    await asyncio.gather(*(donate_with_retries(donor, n) for n in range(40)))
    cents = sum(100 + n for n in range(40))
    assert (await donor.books())["USD"]["captured"] == f"{cents / 100:.2f}"

    async def arrived_or_listed() -> bool:
        page = await donor.stripe.v1.events.list_async({"delivery_success": False, "limit": 100})
        return len({event.id for event in page.data} | {event["id"] for event in receiver.events}) == 80

    await until(arrived_or_listed)
    intents = {intent["id"]: intent["amount"] for intent in receiver.of("payment_intent.succeeded")}
    missed = await donor.stripe.v1.events.list_async({"delivery_success": False, "limit": 100})
    for event in missed.data:
        if event.type == "payment_intent.succeeded":
            intents[event.data.object["id"]] = event.data.object["amount"]
    assert sum(intents.values()) == cents
