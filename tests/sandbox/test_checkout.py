"""Checkout Sessions and payments, through Stripe's client library."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import stripe
from stripe.params._payment_link_create_params import PaymentLinkCreateParams
from stripe.params._payment_link_update_params import PaymentLinkUpdateParams
from stripe.params._refund_create_params import RefundCreateParams
from stripe.params.checkout._session_create_params import SessionCreateParams

from sandbox import stripe_parameters
from sandbox.stripe_objects import API_VERSION
from tests.sandbox.harness import Donor, Receiver
from tests.waiting import until


def test_api_version_and_parameters_match_the_installed_library() -> None:
    assert stripe.api_version == API_VERSION
    request_options = set(stripe.RequestOptions.__annotations__)
    assert set(SessionCreateParams.__annotations__) - request_options == stripe_parameters.SESSION
    assert set(RefundCreateParams.__annotations__) - request_options == stripe_parameters.REFUND
    assert set(PaymentLinkCreateParams.__annotations__) - request_options == stripe_parameters.LINK
    assert set(PaymentLinkUpdateParams.__annotations__) - request_options == stripe_parameters.LINK_UPDATE


async def test_open_session_has_its_parameters_and_a_hosted_page(donor: Donor) -> None:
    session = await donor.session(2500, customer_email="a@example.org")
    assert (session.status, session.payment_status) == ("open", "unpaid")
    assert (session.amount_total, session.currency, session.livemode) == (2500, "usd", False)
    assert session.url == f"{donor.base}/c/pay/{session.id}"
    assert session.payment_intent is None
    assert session.expires_at == session.created + 86_400
    again = await donor.stripe.v1.checkout.sessions.retrieve_async(session.id)
    assert again.to_dict() == session.to_dict()


async def test_embedded_session_has_a_client_secret_and_the_same_page(donor: Donor) -> None:
    session_params = donor.session_params(ui_mode="embedded_page", return_url="http://example.org/back")
    del session_params["success_url"]
    session = await donor.stripe.v1.checkout.sessions.create_async(session_params)
    assert session.url is None
    assert session.client_secret is not None
    assert session.client_secret.startswith(session.id + "_secret_")
    assert (await donor.pay(session.id))["redirect_url"] == "http://example.org/back"


async def test_paid_session_has_a_payment_intent_with_its_metadata(donor: Donor) -> None:
    session = await donor.session()
    paid = await donor.pay(session.id)
    assert paid["redirect_url"] == f"http://example.org/thanks?s={session.id}"
    session_params: Any = {"expand": ["payment_intent.latest_charge", "line_items"]}
    complete = await donor.stripe.v1.checkout.sessions.retrieve_async(session.id, session_params)
    assert (complete.status, complete.payment_status, complete.url) == ("complete", "paid", None)
    intent = complete.payment_intent
    assert isinstance(intent, stripe.PaymentIntent)
    assert (intent.status, intent.amount_received) == ("succeeded", 2500)
    assert intent.metadata["ataa_pledge"] == "plg_1"
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert intent.latest_charge.payment_intent == intent.id
    assert complete.line_items is not None
    assert complete.line_items.data[0].description == "Winter"


async def test_payment_sends_the_intents_event_before_the_sessions(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate()
    await until(lambda: len(receiver.events) == 2)
    assert receiver.types == ["payment_intent.succeeded", "checkout.session.completed"]
    intent, session = (event["data"]["object"] for event in receiver.events)
    assert intent["id"] == session["payment_intent"] == payment
    assert all(event["livemode"] is False for event in receiver.events)
    assert all(event["api_version"] == API_VERSION for event in receiver.events)


async def test_declined_card_leaves_the_session_open(donor: Donor, receiver: Receiver) -> None:
    session = await donor.session()
    declined = await donor.pay(session.id, "4000000000000002")
    assert declined["http_status"] == 200
    assert (declined["payment_status"], declined["decline_code"]) == ("unpaid", "generic_decline")
    await until(lambda: receiver.types == ["payment_intent.payment_failed"])
    failed = receiver.of("payment_intent.payment_failed")[0]
    assert failed["last_payment_error"]["code"] == "card_declined"
    paid = await donor.pay(session.id)
    assert paid["payment_status"] == "paid"
    assert paid["payment_intent"] == failed["id"]
    intent = await donor.stripe.v1.payment_intents.retrieve_async(failed["id"])
    assert (intent.status, intent.last_payment_error) == ("succeeded", None)


async def test_session_is_captured_once_under_concurrent_payments(donor: Donor, receiver: Receiver) -> None:
    session = await donor.session(1000)
    answers = await asyncio.gather(*(donor.pay(session.id) for _ in range(8)))
    assert {answer["payment_intent"] for answer in answers} == {answers[0]["payment_intent"]}
    assert (await donor.books())["USD"]["captured"] == "10.00"
    await until(lambda: len(receiver.events) == 2)
    assert await donor.undelivered() == []


@pytest.mark.parametrize("card", ["1234", "", "4242424242424241", 42, None, "4" * 600])
async def test_unknown_card_is_refused(donor: Donor, card: object) -> None:
    session = await donor.session()
    status, answer = await donor.post(f"/c/pay/{session.id}/pay", {"card": card})
    assert status == 400
    assert answer["payment_status"] == "unpaid"
    assert answer["error"]["message"]
    assert (await donor.stripe.v1.checkout.sessions.retrieve_async(session.id)).status == "open"


async def test_unknown_session_and_invalid_json_are_refused(donor: Donor) -> None:
    assert (await donor.post("/c/pay/cs_test_none/pay", {"card": "4242424242424242"}))[0] == 404
    session = await donor.session()
    async with donor.http.post(f"{session.url}/pay", data=b"\xff{") as response:
        assert response.status == 400


async def test_expired_session_cannot_be_paid(donor: Donor, receiver: Receiver) -> None:
    session = await donor.session()
    expired = await donor.stripe.v1.checkout.sessions.expire_async(session.id)
    assert expired.status == "expired"
    assert (await donor.pay(session.id))["http_status"] == 410
    with pytest.raises(stripe.InvalidRequestError):
        await donor.stripe.v1.checkout.sessions.expire_async(session.id)
    await until(lambda: receiver.types == ["checkout.session.expired"])
    assert receiver.of("checkout.session.expired")[0]["payment_status"] == "unpaid"


async def test_session_expires_at_its_time(donor: Donor, receiver: Receiver) -> None:
    session = await donor.session(expires_at=int(time.time()) + 1)
    await until(lambda: "checkout.session.expired" in receiver.types)
    assert (await donor.stripe.v1.checkout.sessions.retrieve_async(session.id)).status == "expired"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"mode": "setup"}, "mode"),
        ({"success_url": ""}, "success_url"),
        ({"success_url": "javascript:alert(1)"}, "success_url"),
        ({"line_items": []}, "line_items"),
        ({"donation": "yes"}, "donation"),
        ({"expires_at": 1}, "expires_at"),
        ({"ui_mode": "hosted"}, "ui_mode"),
        ({"customer_email": "nobody"}, "customer_email"),
        ({"metadata": {"k" * 41: "v"}}, f"metadata[{'k' * 40}]"),
    ],
)
async def test_invalid_session_parameters_are_refused(donor: Donor, change: Any, param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await donor.session(**change)
    assert refused.value.param == param
    assert (await donor.stripe.v1.checkout.sessions.list_async()).data == []


@pytest.mark.parametrize(
    ("amount", "currency"), [(0, "usd"), (-5, "usd"), (100_000_000, "usd"), (1001, "kwd"), (150, "isk")]
)
async def test_invalid_amounts_are_refused(donor: Donor, amount: int, currency: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await donor.session(amount, currency)
    assert refused.value.param == "line_items[0][price_data][unit_amount]"


async def test_sessions_are_listed_newest_first_in_pages(donor: Donor) -> None:
    opened = [(await donor.session()).id for _ in range(5)]
    session_params: Any = {"limit": 2, "created": {"gte": int(time.time()) - 60}}
    page = await donor.stripe.v1.checkout.sessions.list_async(session_params)
    assert page.has_more
    assert [session.id async for session in page.auto_paging_iter()] == opened[::-1]
    before = await donor.stripe.v1.checkout.sessions.list_async({"ending_before": opened[1], "limit": 2})
    assert [session.id for session in before.data] == [opened[3], opened[2]]
    later: Any = {"created": {"gt": int(time.time()) + 60}}
    assert (await donor.stripe.v1.checkout.sessions.list_async(later)).data == []


@pytest.mark.parametrize("session_params", [{"limit": 0}, {"limit": 101}, {"starting_after": "cs_none"}])
async def test_invalid_page_parameters_are_refused(donor: Donor, session_params: Any) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await donor.stripe.v1.checkout.sessions.list_async(session_params)


async def test_wrong_key_unknown_id_and_unknown_route_are_refused(donor: Donor) -> None:
    other: Any = {"api_key": "sk_test_other"}
    with pytest.raises(stripe.AuthenticationError):
        await donor.stripe.v1.events.list_async({}, other)
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        await donor.stripe.v1.checkout.sessions.retrieve_async("cs_test_none")
    assert (unknown.value.http_status, unknown.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError):
        await donor.stripe.v1.customers.list_async()
