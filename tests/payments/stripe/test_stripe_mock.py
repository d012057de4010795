"""Every request that payments makes fits Stripe's OpenAPI description, as stripe-mock checks it.

stripe-mock keeps nothing and answers with fixtures, so this says nothing of behaviour. Its description is of
version 2026-08-26.dahlia of the API, the newest that a release has; payments names a later one
(`client.API_VERSION`), of which it checks nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from backbone.money import Money
from services.payments.domain import FactKind
from services.payments.processor import CheckoutRequest, LinkRequest, ProcessorError
from services.payments.stripe.client import ADDRESSES, StripeProcessor
from tests.payments.stripe import stripe_mock
from tests.waiting import until

NOW = datetime.now(UTC)
HOSTED = CheckoutRequest(
    payment_id="pay_1", pledge_id="plg_1", drive_id="drv_1", amount=Money(2_500, "USD"), mode="hosted",
    title="Winter", slug="winter", return_url="https://example.org/thanks", email="amal@example.org",
    locale="ar", made_at=NOW, test=True,
)  # fmt: skip


class Watched(StripeProcessor):
    """Keeps the requests and the errors that Stripe answered: some methods read a refusal as "not there"."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.sent: list[str] = []
        self.refused: list[str] = []

    async def _respond(self, method: str, path: str, parameters: Mapping[str, Any]) -> Any:
        self.sent.append(f"{method} {path}")
        try:
            return await super()._respond(method, path, parameters)
        except ProcessorError as error:
            self.refused.append(f"{method} {path}: {error}")
            raise


async def open_checkouts(stripe: Watched) -> None:
    others = [
        replace(HOSTED, mode="embedded"),
        replace(HOSTED, email=None, locale=None, return_url=None),
        replace(HOSTED, amount=Money(2_500, "JPY")),
        replace(HOSTED, amount=Money(2_500, "KWD")),
    ]
    for number, request in enumerate((HOSTED, *others)):
        await stripe.open_checkout(f"pay_1.{number}", stripe.checkout_parameters(request))
    for without in (("expires_at",), ("customer_email", "locale"), tuple(ADDRESSES)):
        await stripe.open_checkout("pay_2.1", stripe.checkout_parameters(HOSTED, without))


LINK = LinkRequest(
    key="drv_1.USD.2500", drive_id="drv_1", amount=Money(2_500, "USD"), title="Winter", slug="winter",
    test=True,
)  # fmt: skip


async def create_links(stripe: Watched) -> None:
    for amount in (Money(2_500, "USD"), Money(2_500, "JPY"), Money(2_500, "KWD")):
        parameters = stripe.link_parameters(replace(LINK, amount=amount))
        await stripe.create_link(f"{LINK.key}.1", parameters)


async def set_link_active(stripe: Watched) -> None:
    for active in (True, False):
        await stripe.set_link_active("plink_1", active)


async def refund(stripe: Watched) -> None:
    for reason in (None, "The donor asked for it."):
        await stripe.refund("rfd_1.1", stripe.refund_parameters("pi_1", Money(500, "USD"), "rfd_1", reason))


async def list_facts(stripe: Watched) -> None:
    for kind in (FactKind.CAPTURE, FactKind.REFUND, FactKind.DISPUTE):
        for after in (None, "re_1"):
            await stripe.list_facts(kind, NOW - timedelta(days=1), NOW, after)


async def read_fact(stripe: Watched) -> None:
    for kind in (FactKind.REFUND, FactKind.DISPUTE):
        await stripe.read_fact(kind, "re_1")


async def list_movements(stripe: Watched) -> None:
    await stripe.list_movements(None, since=NOW)
    await stripe.list_movements("txn_1", payout="po_1")


CASES: dict[str, Callable[[Watched], Awaitable[object]]] = {
    "open_checkout": open_checkouts,
    "read_checkout": lambda stripe: stripe.read_checkout("cs_1"),
    "create_link": create_links,
    "set_link_active": set_link_active,
    "expire_checkout": lambda stripe: stripe.expire_checkout("cs_1"),
    "list_checkouts": lambda stripe: stripe.list_checkouts(NOW, "cs_1"),
    "refund": refund,
    "list_refunds": lambda stripe: stripe.list_refunds("pi_1"),
    "list_disputes": lambda stripe: stripe.list_disputes("pi_1"),
    "find_capture": lambda stripe: stripe.find_capture("pi_1"),
    "list_lost_events": lambda stripe: stripe.list_lost_events(NOW, "evt_1"),
    "list_facts": list_facts,
    "read_fact": read_fact,
    "list_movements": list_movements,
    "read_payout": lambda stripe: stripe.read_payout("po_1"),
    "list_webhook_endpoints": lambda stripe: stripe.list_webhook_endpoints(),
}


def test_every_method_that_asks_stripe_has_a_case() -> None:
    asking = {
        name
        for name, method in inspect.getmembers(StripeProcessor, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert set(CASES) == asking - {"close"}


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stripe_mock.running(tmp_path_factory.mktemp("stripe-mock")) as url:
        yield url


@pytest.fixture
async def stripe(mock: str) -> AsyncIterator[Watched]:
    processor = Watched(
        "sk_test_123", base=mock, timeout_s=10.0, expires_s=1_800, donor_url="https://give.test", in_flight=4
    )

    async def answers() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{mock}/v1/balance"):
                return True
        except aiohttp.ClientError:
            return False

    await until(answers)
    yield processor
    await processor.close()


@pytest.mark.parametrize("method", CASES)
async def test_stripe_mock_accepts_every_request(stripe: Watched, method: str) -> None:
    await CASES[method](stripe)
    assert stripe.refused == []
    assert stripe.sent


async def test_stripe_mock_refuses_what_its_description_does_not_know(stripe: Watched) -> None:
    parameters = stripe.checkout_parameters(HOSTED) | {"submit_type": "beg"}
    with pytest.raises(ProcessorError):
        await stripe.open_checkout("pay_1.1", parameters)
    parameters = stripe.checkout_parameters(HOSTED) | {"no_such_parameter": "1"}
    with pytest.raises(ProcessorError):
        await stripe.open_checkout("pay_1.1", parameters)
    with pytest.raises(ProcessorError):
        await stripe.create_link("link_1.1", stripe.link_parameters(LINK) | {"no_such_parameter": "1"})
