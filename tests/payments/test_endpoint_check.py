"""The webhook endpoint's event types are checked at startup; a finding is reported and stops nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from backbone.clock import FrozenClock
from services.payments.processor import ProcessorError, Refused, Unavailable, Unknown, WebhookEndpoint
from services.payments.reconciliation.endpoint_check import (
    check_endpoints,
    clear_endpoint_metrics,
    missing_types,
)
from services.payments.stripe.events import READERS
from tests.payments.harness import a_drive, running
from tests.payments.listing_processor import ListingProcessor
from tests.waiting import until

HANDBOOK = Path(__file__).parents[2] / "docs" / "operations" / "stripe.md"
EVERY = frozenset(READERS)
OURS = "https://give.example/webhooks/stripe"


def endpoint(*without: str, url: str = OURS, enabled: bool = True) -> WebhookEndpoint:
    return WebhookEndpoint(url, enabled, EVERY - set(without))


@pytest.mark.parametrize(
    ("endpoints", "missing"),
    [
        ([endpoint()], frozenset()),
        ([WebhookEndpoint(OURS, True, frozenset({"*"}))], frozenset()),
        ([endpoint("refund.failed")], {"refund.failed"}),
        ([endpoint("refund.failed"), endpoint("refund.created")], frozenset()),  # two add up
        ([endpoint("refund.failed"), endpoint(url="https://shop.example/hooks")], {"refund.failed"}),
        ([endpoint("refund.failed"), endpoint(enabled=False)], {"refund.failed"}),
        ([endpoint("refund.failed", url=OURS + "/?from=stripe")], {"refund.failed"}),
        ([endpoint(url="https://shop.example/hooks")], None),
        ([], None),
    ],
)
def test_the_types_of_our_enabled_endpoints_add_up(
    endpoints: list[WebhookEndpoint], missing: frozenset[str] | None
) -> None:
    assert missing_types(endpoints) == missing


def shown() -> set[str]:
    """The missing types by the metric."""
    name = "ataa_stripe_webhook_types_missing"
    found = next(metric for metric in REGISTRY.collect() if metric.name == name)
    return {sample.labels["type"] for sample in found.samples}


def checks(outcome: str) -> float:
    name = "ataa_stripe_endpoint_checks_total"
    return REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0


async def test_missing_types_are_in_the_metric_until_they_are_selected() -> None:
    processor = ListingProcessor(FrozenClock())
    processor.endpoints = [endpoint("refund.failed", "charge.dispute.created")]
    assert await check_endpoints(processor) == shown() == {"refund.failed", "charge.dispute.created"}
    processor.endpoints = [endpoint()]
    assert await check_endpoints(processor) == shown() == set()
    processor.endpoints = []
    assert await check_endpoints(processor) == shown() == EVERY
    clear_endpoint_metrics()
    assert shown() == set()


class Closed(ListingProcessor):
    """A processor whose key may not read the endpoints."""

    def __init__(self, error: ProcessorError) -> None:
        super().__init__(FrozenClock())
        self.error = error

    async def list_webhook_endpoints(self) -> list[WebhookEndpoint]:
        raise self.error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unavailable("the key may not"), "not_permitted"),
        (Refused("no such thing"), "not_permitted"),
        (Unknown("no answer"), "failed"),
    ],
)
async def test_an_endpoint_check_that_fails_is_logged_and_stops_nothing(
    error: ProcessorError, outcome: str
) -> None:
    before = checks(outcome)
    assert await check_endpoints(Closed(error)) == frozenset()
    assert checks(outcome) == before + 1
    assert shown() == set()


async def test_a_running_service_checks_its_endpoint_and_continues(tmp_path: Path) -> None:
    async with running(tmp_path, stripe_sweep_s=0.1) as harness:
        before = checks("complete")
        await until(lambda: checks("complete") > before)
        await harness.faults(unsubscribed=["refund.failed"])
        await until(lambda: shown() == {"refund.failed"})
        await harness.status(await harness.donate(a_drive()), "paid")
    assert shown() == set()


def test_the_documentation_lists_exactly_the_types_that_are_read() -> None:
    text = HANDBOOK.read_text(encoding="utf-8")
    block = text.partition("<!-- event types -->")[2].partition("<!-- end of event types -->")[0]
    assert re.findall(r"^- `([a-z_.]+)`", block, re.MULTILINE) == sorted(READERS)
