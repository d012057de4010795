"""A shop on the same Stripe account: its sales leave no trace here, through the real client and sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import stripe

from backbone.caller import sign_caller
from services.payments.domain import Finding
from services.payments.processor import Foreign
from services.payments.stripe_processor import API_VERSION, StripeProcessor
from tests.payments.stage import SECRET, STRIPE_KEY, Stage, a_drive, running
from tests.waiting import until

PLEDGE = "plg_01frtz5n00000000000000000c"


def a_shop(sandbox: str, http: aiohttp.ClientSession) -> stripe.StripeClient:
    """A client of the same account that knows nothing of us."""
    return stripe.StripeClient(
        STRIPE_KEY,
        http_client=stripe.AIOHTTPClient(session=http),
        stripe_version=API_VERSION,
        base_addresses={"api": sandbox},
    )


async def sell(stage: Stage, units: int = 9_900, **marks: Any) -> str:
    """A sale, paid; its PaymentIntent."""
    price = {"currency": "usd", "unit_amount": units, "product_data": {"name": "Hat"}}
    wish: Any = {
        "mode": "payment",
        "line_items": [{"price_data": price, "quantity": 1}],
        "success_url": "http://example.org/",
        "metadata": {"order": "17"},
    }
    session = await a_shop(stage.sandbox, stage.http).v1.checkout.sessions.create_async(wish | marks)
    assert session.url is not None
    return str((await stage.pay(session.url))["payment_intent"])


@asynccontextmanager
async def a_processor(stage: Stage) -> AsyncIterator[StripeProcessor]:
    processor = StripeProcessor(
        STRIPE_KEY, base=stage.sandbox, timeout_s=2.0, expires_s=3_600, donor_url="http://x", in_flight=2
    )
    try:
        yield processor
    finally:
        await processor.close()


async def webhooks(stage: Stage, state: str) -> list[dict[str, Any]]:
    """Webhooks in a state, as an operator lists them."""
    reply = await stage.ask("GET", "/v1/webhooks", **sign_caller(SECRET, partner="ataa", scopes=("admin",)))
    assert reply.status == 200
    return [one for one in reply.json()["data"] if one["state"] == state]


async def test_a_sale_of_the_shop_is_in_no_books_and_all_comes_to_rest(tmp_path: Path) -> None:
    async with running(tmp_path) as stage:
        pledge = await stage.give(a_drive(), 2_500)
        await sell(stage)
        await stage.status(pledge, "paid")

        async def both_came() -> bool:
            return len(await webhooks(stage, "ignored")) == 2

        await until(both_came)
        assert await stage.agreed() == {"USD": "25.00"}
        assert {one["reason"] for one in await webhooks(stage, "ignored")} == {"foreign"}
        assert {event.pledge_id for event in stage.said} == {pledge}


async def test_lost_webhooks_of_the_shop_are_found_and_ignored_likewise(tmp_path: Path) -> None:
    async with running(tmp_path) as stage:
        await stage.faults(drop_rate=1.0)
        await stage.give(a_drive(), 2_500)
        await sell(stage)

        async def both_came() -> bool:
            return len(await webhooks(stage, "ignored")) == 2

        await until(both_came)
        assert await stage.agreed() == {"USD": "25.00"}


async def test_on_an_account_of_our_own_the_sale_is_held(tmp_path: Path) -> None:
    async with running(tmp_path, stripe_foreign="hold") as stage:
        await sell(stage)

        async def held() -> bool:
            return await stage.books() == {"USD": "99.00"}

        await until(held)
        async with stage.http.get(f"{stage.sandbox}/_sandbox/books?with_foreign=true") as answer:
            assert (await answer.json())["USD"]["captured"] == "99.00"
        assert [event.held for event in stage.said] == [True]


async def test_whose_an_intent_is_stripe_tells_by_the_intent_or_by_its_checkout(tmp_path: Path) -> None:
    async with running(tmp_path) as stage, a_processor(stage) as processor:
        shop = await processor.find_capture(await sell(stage))
        by_intent = await processor.find_capture(
            await sell(stage, payment_intent_data={"metadata": {"ataa_pledge": PLEDGE}})
        )
        by_checkout = await processor.find_capture(await sell(stage, metadata={"ataa_pledge": PLEDGE}))
        by_reference = await processor.find_capture(await sell(stage, client_reference_id=PLEDGE))
        assert isinstance(shop, Foreign)
        assert shop.capture is not None
        assert (shop.capture.units, shop.capture.pledge_id) == (9_900, None)
        for found in (by_intent, by_checkout, by_reference):
            assert isinstance(found, Finding)
            assert (found.units, found.pledge_id) == (9_900, PLEDGE)
        assert await processor.find_capture("pi_nobody_made") is None
