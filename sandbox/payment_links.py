"""Payment Links: created once, opened any number of times (https://docs.stripe.com/api/payment-link).

Each visit of a link makes a Checkout Session with the link's price and metadata and with the visitor's
`client_reference_id`. An invalid reference is dropped and the page still works, as at Stripe
(https://docs.stripe.com/payment-links/url-parameters).
"""

from __future__ import annotations

import re
from typing import Any, Final

from sandbox import forms
from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.checkout import DAY_S, SUBMIT_TYPES, line_of, store_session
from sandbox.currencies import refuse_bad_amount
from sandbox.errors import ApiError, invalid
from sandbox.listing import Clause, page_of
from sandbox.records import Json, PaymentLink, Session, new_id
from sandbox.stripe_objects import page_object, payment_link_object, to_json
from sandbox.stripe_parameters import LINK, LINK_UPDATE, refuse_unknown

REFERENCE: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")


def create_link(account: Account, call: ApiCall) -> Json:
    """Create a link with one line item at an inline price. Raises ApiError for what Stripe refuses."""
    params = call.params
    refuse_unknown(params, LINK)
    line = line_of(params)
    amount = line["unit_amount"] * line["quantity"]
    refuse_bad_amount(amount, line["currency"], "line_items[0][price_data][unit_amount]")
    requested = line | {
        "metadata": forms.metadata(params),
        "intent_metadata": forms.metadata(forms.group(params, "payment_intent_data"), "payment_intent_data"),
        "submit_type": forms.choice(params, "submit_type", SUBMIT_TYPES, "auto"),
        "redirect": _redirect(params),
    }
    link_id, now = new_id("plink_"), int(account.clock())
    n = account.journal.write(
        "INSERT INTO payment_links (id, created, active, parameters) VALUES (?, ?, 1, ?)",
        (link_id, now, to_json(requested)),
    )
    return payment_link_object(PaymentLink(n, link_id, now, True, requested), account.base_url)


def _redirect(params: dict[str, Any]) -> str | None:
    after = forms.group(params, "after_completion")
    kind = forms.choice(after, "type", ("hosted_confirmation", "redirect"), "hosted_confirmation")
    if kind != "redirect":
        return None
    url = forms.required_text(
        forms.group(after, "redirect", "after_completion"), "url", "after_completion[redirect]"
    )
    if not url.startswith(("http://", "https://")):
        raise invalid("Not a valid URL", "after_completion[redirect][url]", "url_invalid")
    return url


def update_link(account: Account, call: ApiCall) -> Json:
    """Switch a link on or off; the sandbox changes nothing else. Raises ApiError (404)."""
    refuse_unknown(call.params, LINK_UPDATE)
    link = account.payment_link(call.target)
    active = forms.boolean(call.params, "active")
    if active is not None:
        account.journal.write("UPDATE payment_links SET active = ? WHERE n = ?", (int(active), link.n))
        link = link._replace(active=active)
    return payment_link_object(link, account.base_url)


def retrieve_link(account: Account, call: ApiCall) -> Json:
    """Retrieve a link by id. Raises ApiError (404)."""
    return payment_link_object(account.payment_link(call.target), account.base_url)


def list_links(account: Account, call: ApiCall) -> Json:
    """List links, newest first; filter: active."""
    active = forms.boolean(call.params, "active")
    clauses: list[Clause] = [] if active is None else [("active = ?", (int(active),))]
    rows, more = page_of(account, "payment_links", call.params, clauses)
    data = [payment_link_object(PaymentLink.from_row(row), account.base_url) for row in rows]
    return page_object(data, more, "/v1/payment_links")


def open_link(account: Account, link_id: str, reference: str | None) -> Session:
    """The Checkout Session of one visit. Raises ApiError for an unknown link (404), an inactive one (410)."""
    link = account.payment_link(link_id)
    if not link.active:
        code, message = "payment_link_inactive", "This payment link is not active."
        error = {"type": "invalid_request_error", "code": code, "message": message}
        raise ApiError(410, error)
    kept = reference if reference and REFERENCE.fullmatch(reference) else None
    now = int(account.clock())
    requested = link.requested | {
        "ui_mode": "hosted_page",
        "success_url": link.requested["redirect"],
        "cancel_url": None,
        "return_url": None,
        "client_reference_id": kept,
        "customer_email": None,
        "locale": "auto",
        "adaptive_pricing": True,
        "payment_link": link.id,
    }
    return store_session(account, requested, now, now + DAY_S)
