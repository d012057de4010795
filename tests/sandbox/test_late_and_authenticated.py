"""Cards that need 3-D Secure, and bank debits that settle or fail after the session is complete."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.page_texts import TEXTS
from tests.sandbox.harness import Donor, Receiver
from tests.waiting import until

AUTHENTICATES = "4000002760003184"
SETTLES, FAILS = "000123456789", "000111111116"


async def intent_status(donor: Donor, intent: str) -> str:
    return (await donor.stripe.v1.payment_intents.retrieve_async(intent)).status


async def authenticate(donor: Donor, session: str, outcome: Any) -> dict[str, Any]:
    status, answer = await donor.post(f"/c/pay/{session}/authenticate", {"outcome": outcome})
    return {"http_status": status} | answer


async def test_a_card_with_3d_secure_is_charged_after_the_authentication(
    donor: Donor, receiver: Receiver
) -> None:
    session = await donor.session()
    asked = await donor.pay(session.id, AUTHENTICATES)
    assert (asked["status"], asked["payment_status"]) == ("open", "unpaid")
    assert asked["intent_status"] == "requires_action"
    assert asked["authentication_url"] == f"{session.url}/authenticate"
    assert await intent_status(donor, asked["payment_intent"]) == "requires_action"
    assert await donor.books() == {}
    paid = await authenticate(donor, session.id, "succeed")
    assert (paid["status"], paid["payment_status"]) == ("complete", "paid")
    assert paid["redirect_url"] == f"http://example.org/thanks?s={session.id}"
    assert await authenticate(donor, session.id, "fail") == paid  # it stays paid
    await until(lambda: "checkout.session.completed" in receiver.types)
    assert receiver.types.count("payment_intent.succeeded") == 1
    assert (await donor.books())["USD"]["captured"] == "25.00"


async def test_after_a_failed_authentication_another_card_may_pay(donor: Donor, receiver: Receiver) -> None:
    session = await donor.session()
    await donor.pay(session.id, AUTHENTICATES)
    failed = await authenticate(donor, session.id, "fail")
    assert (failed["status"], failed["decline_code"]) == ("open", "authentication_failed")
    assert await intent_status(donor, failed["payment_intent"]) == "requires_payment_method"
    await until(lambda: "payment_intent.payment_failed" in receiver.types)
    again = await authenticate(donor, session.id, "succeed")
    assert (again["http_status"], again["payment_status"]) == (400, "unpaid")
    paid = await donor.pay(session.id)
    assert (paid["payment_status"], paid["payment_intent"]) == ("paid", failed["payment_intent"])


async def test_an_authenticated_card_may_still_be_declined(donor: Donor) -> None:
    session = await donor.session()
    await donor.pay(session.id, "4000008400001629")
    declined = await authenticate(donor, session.id, "succeed")
    assert (declined["payment_status"], declined["decline_code"]) == ("unpaid", "generic_decline")


async def test_another_card_replaces_one_that_was_not_authenticated(donor: Donor) -> None:
    session = await donor.session()
    await donor.pay(session.id, AUTHENTICATES)
    declined = await donor.pay(session.id, "4000000000000002")
    assert await intent_status(donor, declined["payment_intent"]) == "requires_payment_method"
    assert (await donor.pay(session.id))["payment_status"] == "paid"


async def test_a_session_that_expires_during_the_authentication_charges_nothing(donor: Donor) -> None:
    session = await donor.session()
    await donor.pay(session.id, AUTHENTICATES)
    await donor.stripe.v1.checkout.sessions.expire_async(session.id)
    assert (await authenticate(donor, session.id, "succeed"))["http_status"] == 410
    assert await donor.books() == {}


@pytest.mark.parametrize("outcome", ["yes", None, 1])
async def test_an_unknown_outcome_of_an_authentication_is_refused(donor: Donor, outcome: Any) -> None:
    session = await donor.session()
    await donor.pay(session.id, AUTHENTICATES)
    assert (await authenticate(donor, session.id, outcome))["http_status"] == 400
    assert (await authenticate(donor, session.id, "succeed"))["payment_status"] == "paid"


@pytest.mark.parametrize("language", ["en", "ar"])
async def test_the_forms_lead_through_the_authentication(donor: Donor, language: str) -> None:
    session = await donor.session(locale=language)
    form = {"card": AUTHENTICATES, "email": "a@example.org"}
    async with donor.http.post(f"{session.url}/pay", data=form) as asked:
        assert str(asked.url) == f"{session.url}/authenticate"
        assert TEXTS[language]["authenticate_succeed"] in await asked.text()
    async with donor.http.post(f"{session.url}/authenticate", data={"outcome": "fail"}) as failed:
        assert TEXTS[language]["problem_authentication_failed"] in await failed.text()
    await donor.pay(session.id, AUTHENTICATES)
    done = {"outcome": "succeed"}
    async with donor.http.post(f"{session.url}/authenticate", data=done, allow_redirects=False) as paid:
        assert (paid.status, paid.headers["Location"]) == (303, f"http://example.org/thanks?s={session.id}")


async def test_a_bank_debit_completes_its_session_unpaid_and_settles_later(
    donor: Donor, receiver: Receiver
) -> None:
    session = await donor.session()
    begun = await donor.pay(session.id, SETTLES)
    assert (begun["status"], begun["payment_status"]) == ("complete", "unpaid")
    assert await intent_status(donor, begun["payment_intent"]) == "processing"
    await until(lambda: receiver.of("checkout.session.async_payment_succeeded"))
    (completed,) = receiver.of("checkout.session.completed")
    (settled,) = receiver.of("checkout.session.async_payment_succeeded")
    assert (completed["status"], completed["payment_status"]) == ("complete", "unpaid")
    assert (settled["status"], settled["payment_status"]) == ("complete", "paid")
    assert await intent_status(donor, begun["payment_intent"]) == "succeeded"
    assert (await donor.books())["USD"]["captured"] == "25.00"
    assert (await donor.pay(session.id))["payment_intent"] == begun["payment_intent"]  # and is charged once


async def test_a_bank_debit_that_fails_leaves_its_session_unpaid(donor: Donor, receiver: Receiver) -> None:
    session = await donor.session()
    begun = await donor.pay(session.id, FAILS)
    await until(lambda: receiver.of("checkout.session.async_payment_failed"))
    (failed,) = receiver.of("checkout.session.async_payment_failed")
    assert (failed["status"], failed["payment_status"]) == ("complete", "unpaid")
    assert await intent_status(donor, begun["payment_intent"]) == "requires_payment_method"
    assert receiver.of("payment_intent.payment_failed")
    again = await donor.pay(session.id)
    assert (again["status"], again["payment_status"]) == ("complete", "unpaid")
    assert await donor.books() == {}
    listed: Any = {"status": "complete"}
    page = await donor.stripe.v1.checkout.sessions.list_async(listed)
    assert [each.id for each in page.data] == [session.id]
