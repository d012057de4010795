"""A shop on the same Stripe account: its sales are not recorded, through the real client and sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import stripe

from backbone.http.caller import sign_caller
from services.payments.domain import Observation
from services.payments.processor import Foreign
from services.payments.stripe.client import API_VERSION, StripeProcessor
from tests.payments.harness import SECRET, STRIPE_KEY, Harness, a_drive, running
from tests.waiting import until

PLEDGE = "plg_01frtz5n00000000000000000c"


def a_shop(sandbox: str, http: aiohttp.ClientSession) -> stripe.StripeClient:
    """Another client of the same account."""
    return stripe.StripeClient(
        STRIPE_KEY,
        http_client=stripe.AIOHTTPClient(session=http),
        stripe_version=API_VERSION,
        base_addresses={"api": sandbox},
    )


async def sell(harness: Harness, units: int = 9_900, **marks: Any) -> str:
    """Make and pay a sale; returns its PaymentIntent."""
    price = {"currency": "usd", "unit_amount": units, "product_data": {"name": "Hat"}}
    fields: Any = {
        "mode": "payment",
        "line_items": [{"price_data": price, "quantity": 1}],
        "success_url": "http://example.org/",
        "metadata": {"order": "17"},
    }
    session = await a_shop(harness.sandbox, harness.http).v1.checkout.sessions.create_async(fields | marks)
    assert session.url is not None
    return str((await harness.pay(session.url))["payment_intent"])


@asynccontextmanager
async def a_processor(harness: Harness) -> AsyncIterator[StripeProcessor]:
    processor = StripeProcessor(
        STRIPE_KEY, base=harness.sandbox, timeout_s=2.0, expires_s=3_600, donor_url="http://x", in_flight=2
    )
    try:
        yield processor
    finally:
        await processor.close()


async def webhooks(harness: Harness, state: str) -> list[dict[str, Any]]:
    """The webhooks in a state, by the API."""
    reply = await harness.ask("GET", "/v1/webhooks", **sign_caller(SECRET, partner="ataa", scopes=("admin",)))
    assert reply.status == 200
    return [one for one in reply.json()["data"] if one["state"] == state]


async def test_a_sale_of_the_shop_is_in_no_books_and_payments_drain(tmp_path: Path) -> None:
    async with running(tmp_path) as harness:
        pledge = await harness.donate(a_drive(), 2_500)
        await sell(harness)
        await harness.status(pledge, "paid")

        async def both_came() -> bool:
            return len(await webhooks(harness, "ignored")) == 2

        await until(both_came)
        assert await harness.agreed_books() == {"USD": "25.00"}
        assert {one["reason"] for one in await webhooks(harness, "ignored")} == {"foreign"}
        assert {event.pledge_id for event in harness.published} == {pledge}


async def test_lost_webhooks_of_the_shop_are_found_and_ignored_too(tmp_path: Path) -> None:
    async with running(tmp_path) as harness:
        await harness.faults(drop_rate=1.0)
        await harness.donate(a_drive(), 2_500)
        await sell(harness)

        async def both_came() -> bool:
            return len(await webhooks(harness, "ignored")) == 2

        await until(both_came)
        assert await harness.agreed_books() == {"USD": "25.00"}


async def test_with_hold_foreign_the_sale_goes_to_suspense(tmp_path: Path) -> None:
    async with running(tmp_path, stripe_foreign="hold") as harness:
        await sell(harness)

        async def held() -> bool:
            return await harness.books() == {"USD": "99.00"}

        await until(held)
        async with harness.http.get(f"{harness.sandbox}/_sandbox/books?with_foreign=true") as answer:
            assert (await answer.json())["USD"]["captured"] == "99.00"
        assert [event.held for event in harness.published] == [True]


async def test_an_intents_owner_is_found_by_the_intent_or_its_checkout(tmp_path: Path) -> None:
    async with running(tmp_path) as harness, a_processor(harness) as processor:
        shop = await processor.find_capture(await sell(harness))
        by_intent = await processor.find_capture(
            await sell(harness, payment_intent_data={"metadata": {"ataa_pledge": PLEDGE}})
        )
        by_checkout = await processor.find_capture(await sell(harness, metadata={"ataa_pledge": PLEDGE}))
        by_reference = await processor.find_capture(await sell(harness, client_reference_id=PLEDGE))
        assert isinstance(shop, Foreign)
        assert shop.capture is not None
        assert (shop.capture.units, shop.capture.pledge_id) == (9_900, None)
        for found in (by_intent, by_checkout, by_reference):
            assert isinstance(found, Observation)
            assert (found.units, found.pledge_id) == (9_900, PLEDGE)
        assert await processor.find_capture("pi_nobody_made") is None
