"""Checks that a Stripe webhook endpoint is subscribed to every event type in `READERS`."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import structlog
from prometheus_client import Counter, Gauge

from services.payments.processor import Processor, ProcessorError, Refused, Unavailable, WebhookEndpoint
from services.payments.stripe.events import READERS

PATH: Final = "/webhooks/stripe"
EVERY_TYPE: Final = "*"

log = structlog.get_logger()

_CHECKS: Final = Counter(
    "ataa_stripe_endpoint_checks_total",
    "Checks of the webhook endpoint: complete, types_missing, no_endpoint, not_permitted, failed.",
    ["outcome"],
)
_MISSING: Final = Gauge(
    "ataa_stripe_webhook_types_missing",
    "1 for each event type that no webhook endpoint of ours is subscribed to.",
    ["type"],
)


async def check_endpoints(processor: Processor) -> frozenset[str]:
    """Report the event types that no endpoint whose address ends in /webhooks/stripe is subscribed to.

    The types of several endpoints add up. Never raises `ProcessorError`: where the key may not read
    endpoints, or Stripe is unavailable, that is logged and the result is empty.
    """
    try:
        endpoints = await processor.list_webhook_endpoints()
    except (Refused, Unavailable) as error:
        _CHECKS.labels("not_permitted").inc()
        log.info("endpoints.not_checked", reason=str(error), advice="the key may not read webhook endpoints")
        return frozenset()
    except ProcessorError as error:
        _CHECKS.labels("failed").inc()
        log.warning("endpoints.not_checked", reason=str(error))
        return frozenset()
    return _report(endpoints)


def clear_endpoint_metrics() -> None:
    """Remove this process's series: another process checks from now on."""
    _MISSING.clear()


def missing_types(endpoints: list[WebhookEndpoint]) -> frozenset[str] | None:
    """The types that none of our enabled endpoints is subscribed to; None where there is no such endpoint."""
    ours = [each for each in endpoints if each.enabled and urlsplit(each.url).path.rstrip("/").endswith(PATH)]
    if not ours:
        return None
    subscribed = frozenset[str]().union(*(each.types for each in ours))
    return frozenset() if EVERY_TYPE in subscribed else frozenset(READERS) - subscribed


def _report(endpoints: list[WebhookEndpoint]) -> frozenset[str]:
    missing = missing_types(endpoints)
    _MISSING.clear()
    if missing is None:
        _CHECKS.labels("no_endpoint").inc()
        log.error(
            "endpoints.none", path=PATH, advice="add a webhook endpoint at Stripe, or enable the existing one"
        )
        missing = frozenset(READERS)
    elif missing:
        _CHECKS.labels("types_missing").inc()
        log.error(
            "endpoints.types_missing", types=sorted(missing), advice="select them at the webhook endpoint"
        )
    else:
        _CHECKS.labels("complete").inc()
    for name in missing:
        _MISSING.labels(name).set(1)
    return missing
