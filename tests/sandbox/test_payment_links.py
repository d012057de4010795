"""Payment Links: each visit makes a session that carries the link and the visitor's reference."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from tests.sandbox.harness import Donor, Receiver
from tests.waiting import until


def parameters(amount: int = 2_500, **others: Any) -> Any:
    price = {"currency": "usd", "unit_amount": amount, "product_data": {"name": "Winter"}}
    return {
        "line_items": [{"quantity": 1, "price_data": price}],
        "submit_type": "donate",
        "metadata": {"ataa_drive": "drv_1"},
        "payment_intent_data": {"metadata": {"ataa_drive": "drv_1"}},
        "after_completion": {"type": "redirect", "redirect": {"url": "http://example.org/thanks"}},
    } | others


async def a_link(donor: Donor, amount: int = 2_500, **others: Any) -> stripe.PaymentLink:
    return await donor.stripe.v1.payment_links.create_async(parameters(amount, **others))


async def test_a_link_has_its_parameters_and_is_listed(donor: Donor) -> None:
    link = await a_link(donor)
    assert (link.object, link.active, link.currency) == ("payment_link", True, "usd")
    assert link.url == f"{donor.base}/c/link/{link.id}"
    assert link.metadata["ataa_drive"] == "drv_1"
    again = await donor.stripe.v1.payment_links.retrieve_async(link.id)
    assert again.to_dict() == link.to_dict()
    page = await donor.stripe.v1.payment_links.list_async({"active": True})
    assert [each.id for each in page.data] == [link.id]


async def test_a_visitor_is_led_to_a_session_with_the_link_and_the_reference(donor: Donor) -> None:
    link = await a_link(donor)
    address = f"{link.url}?client_reference_id=plg_1-abc123"
    async with donor.http.get(address, allow_redirects=False) as visited:
        assert visited.status == 303
        page = visited.headers["Location"]
    session = await donor.stripe.v1.checkout.sessions.retrieve_async(page.rpartition("/")[2])
    assert (session.payment_link, session.client_reference_id) == (link.id, "plg_1-abc123")
    assert (session.amount_total, session.status) == (2_500, "open")
    assert session.metadata is not None
    assert session.metadata["ataa_drive"] == "drv_1"
    async with donor.http.get(address) as shown:
        assert shown.status == 200
        assert str(shown.url) != page  # each visit has a session of its own


@pytest.mark.parametrize("form", ["{url}?client_reference_id=plg_1-abc/pay", "{url}/pay"])
async def test_a_program_pays_a_link_with_a_reference(donor: Donor, receiver: Receiver, form: str) -> None:
    link = await a_link(donor)
    body = {"card": "4242424242424242", "client_reference_id": "plg_1-abc"}
    async with donor.http.post(form.format(url=link.url), json=body) as paid:
        answer = await paid.json()
    assert (paid.status, answer["payment_status"]) == (200, "paid")
    assert answer["redirect_url"] == "http://example.org/thanks"
    await until(lambda: len(receiver.types) == 2)
    (session,) = receiver.of("checkout.session.completed")
    (intent,) = receiver.of("payment_intent.succeeded")
    assert (session["payment_link"], session["client_reference_id"]) == (link.id, "plg_1-abc")
    assert session["payment_intent"] == intent["id"]
    assert intent["metadata"] == {"ataa_drive": "drv_1"}
    assert (await donor.books())["USD"]["captured"] == "25.00"


@pytest.mark.parametrize("reference", ["with space", "a" * 201, "é", "a.b"])
async def test_an_invalid_reference_is_dropped_and_the_page_works(donor: Donor, reference: str) -> None:
    link = await a_link(donor)
    body = {"card": "4242424242424242", "client_reference_id": reference}
    status, answer = await donor.post(f"/c/link/{link.id}/pay", body)
    assert (status, answer["payment_status"]) == (200, "paid")
    session = await donor.stripe.v1.checkout.sessions.retrieve_async(answer["id"])
    assert session.client_reference_id is None


async def test_a_link_is_paid_any_number_of_times_until_it_is_switched_off(donor: Donor) -> None:
    link = await a_link(donor)
    for _ in range(3):
        assert (await donor.post(f"/c/link/{link.id}/pay", {"card": "4242424242424242"}))[0] == 200
    await donor.stripe.v1.payment_links.update_async(link.id, {"active": False})
    status, answer = await donor.post(f"/c/link/{link.id}/pay", {"card": "4242424242424242"})
    assert (status, answer["payment_status"]) == (410, "unpaid")
    assert (await donor.books())["USD"]["captured"] == "75.00"


async def test_an_unknown_link_and_wrong_parameters_are_refused(donor: Donor) -> None:
    assert (await donor.post("/c/link/plink_none/pay", {"card": "4242424242424242"}))[0] == 404
    with pytest.raises(stripe.InvalidRequestError):
        await a_link(donor, 0)
    with pytest.raises(stripe.InvalidRequestError):
        await a_link(donor, client_reference_id="no parameter of a link")


async def test_the_same_key_makes_one_link(donor: Donor) -> None:
    options: Any = {"idempotency_key": "link-1"}
    first = await donor.stripe.v1.payment_links.create_async(parameters(), options)
    again = await donor.stripe.v1.payment_links.create_async(parameters(), options)
    assert first.id == again.id
