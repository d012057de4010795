"""`webhook_endpoints.list`: the one endpoint events are sent to (https://docs.stripe.com/api/webhook_endpoints)."""

from __future__ import annotations

from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.event_types import SELECTABLE
from sandbox.records import Json
from sandbox.stripe_objects import API_VERSION, page_object


def list_webhook_endpoints(account: Account, call: ApiCall) -> Json:
    """The endpoint, subscribed to every type (`*`) but those that the fault `unsubscribed` names."""
    unsubscribed = account.events.unsubscribed()
    selected = [kind for kind in SELECTABLE if kind not in unsubscribed]
    endpoint: Json = {
        "id": "we_sandbox",
        "object": "webhook_endpoint",
        "api_version": API_VERSION,
        "application": None,
        "created": 1_700_000_000,
        "description": "The only endpoint of the sandbox",
        "enabled_events": selected if unsubscribed else ["*"],
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": account.webhook_url,
    }
    return page_object([endpoint], False, "/v1/webhook_endpoints")
