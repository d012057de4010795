"""Checkout Sessions: created, read, listed, expired (https://docs.stripe.com/api/checkout/sessions)."""

from __future__ import annotations

from typing import Any, Final

from sandbox import forms
from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.currencies import known_currency, refuse_bad_amount
from sandbox.errors import invalid, invalid_state, missing_parameter
from sandbox.events import Subject
from sandbox.listing import Clause, page_of
from sandbox.records import Json, Session, new_id
from sandbox.stripe_objects import COMPLETE, line_items, page_object, session_object, to_json
from sandbox.stripe_parameters import SESSION, refuse_unknown

DAY_S: Final = 86_400
UI_MODES: Final = ("hosted_page", "embedded_page")
SUBMIT_TYPES: Final = ("auto", "book", "donate", "pay")


def create_session(account: Account, call: ApiCall) -> Json:
    """Create a session with one line item in payment mode. Raises ApiError for what Stripe refuses."""
    params = call.params
    refuse_unknown(params, SESSION)
    if forms.required_text(params, "mode") != "payment":
        raise invalid("The sandbox supports mode=payment only.", "mode")
    line = line_of(params)
    requested = line | _addresses(params) | _customer_fields(params)
    now = int(account.clock())
    expires_at = _expires_at(params, now)
    amount = line["unit_amount"] * line["quantity"]
    refuse_bad_amount(amount, line["currency"], "line_items[0][price_data][unit_amount]")
    return session_object(store_session(account, requested, now, expires_at), account.base_url)


def store_session(account: Account, requested: Json, now: int, expires_at: int) -> Session:
    """Store a new session with the price and the fields in `requested`."""
    session_id = new_id("cs_test_")
    kept = {name: value for name, value in requested.items() if name != "currency"}
    amount, currency = kept["unit_amount"] * kept["quantity"], requested["currency"]
    n = account.journal.write(
        "INSERT INTO sessions (id, created, expires_at, status, amount, currency, wish)"
        " VALUES (?, ?, ?, 'open', ?, ?, ?)",
        (session_id, now, expires_at, amount, currency, to_json(kept)),
    )
    return Session(n, session_id, now, expires_at, "open", amount, currency, None, kept, None)


def line_of(params: dict[str, Any]) -> Json:
    """The one line item of a request. Raises ApiError for what Stripe refuses."""
    lines = forms.entries(params, "line_items")
    if not lines:
        raise missing_parameter("line_items")
    if len(lines) > 1 or not isinstance(lines[0], dict):
        raise invalid("The sandbox takes exactly one line item.", "line_items")
    within = "line_items[0][price_data]"
    price = forms.group(lines[0], "price_data", "line_items[0]")
    if not price:
        raise missing_parameter(within)
    product = forms.group(price, "product_data", within)
    unit_amount = forms.integer(price, "unit_amount", within)
    if unit_amount is None:
        raise missing_parameter(f"{within}[unit_amount]")
    currency = known_currency(forms.required_text(price, "currency", within), f"{within}[currency]")
    refuse_bad_amount(unit_amount, currency, f"{within}[unit_amount]")
    quantity = forms.integer(lines[0], "quantity", "line_items[0]")
    if quantity is None or not 1 <= quantity <= 999_999:
        raise invalid("Quantity must be at least 1.", "line_items[0][quantity]", "parameter_invalid_integer")
    name = forms.required_text(product, "name", f"{within}[product_data]")
    return {"currency": currency, "unit_amount": unit_amount, "quantity": quantity, "product": name}


def _addresses(params: dict[str, Any]) -> Json:
    ui_mode = forms.choice(params, "ui_mode", UI_MODES, "hosted_page")
    success_url, return_url = forms.text(params, "success_url"), forms.text(params, "return_url")
    cancel_url = forms.text(params, "cancel_url")
    if ui_mode == "hosted_page":
        if success_url is None:
            raise missing_parameter("success_url")
        if return_url is not None:
            raise invalid("`return_url` is not allowed for `ui_mode: hosted_page`.", "return_url")
    else:
        if success_url is not None or cancel_url is not None:
            raise invalid("`success_url` and `cancel_url` are not allowed for this `ui_mode`.", "success_url")
        if return_url is None and forms.text(params, "redirect_on_completion") != "never":
            raise missing_parameter("return_url")
    for name, url in (("success_url", success_url), ("return_url", return_url), ("cancel_url", cancel_url)):
        if url is not None and not url.startswith(("http://", "https://")):
            raise invalid("Not a valid URL", name, "url_invalid")
    return {
        "ui_mode": ui_mode, "success_url": success_url, "cancel_url": cancel_url, "return_url": return_url
    }  # fmt: skip


def _customer_fields(params: dict[str, Any]) -> Json:
    reference = forms.text(params, "client_reference_id")
    if reference is not None and len(reference) > 200:
        raise invalid("Must be at most 200 characters.", "client_reference_id")
    email = forms.text(params, "customer_email")
    if email is not None and ("@" not in email or " " in email or len(email) > 800):
        raise invalid(f"Invalid email address: {email[:80]}", "customer_email", "email_invalid")
    intent = forms.group(params, "payment_intent_data")
    adaptive = forms.boolean(forms.group(params, "adaptive_pricing"), "enabled")
    return {
        "client_reference_id": reference,
        "customer_email": email,
        "metadata": forms.metadata(params),
        "intent_metadata": forms.metadata(intent, "payment_intent_data"),
        "submit_type": forms.choice(params, "submit_type", SUBMIT_TYPES, None),
        "locale": forms.text(params, "locale"),
        "adaptive_pricing": adaptive is not False,
    }


def _expires_at(params: dict[str, Any], now: int) -> int:
    """Stripe requires 30 minutes or more; the sandbox accepts any future time, for the sake of tests."""
    expires_at = forms.integer(params, "expires_at")
    if expires_at is None:
        return now + DAY_S
    if expires_at <= now:
        raise invalid("The `expires_at` timestamp must be in the future.", "expires_at")
    if expires_at > now + DAY_S + 60:
        message = "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation."
        raise invalid(message, "expires_at")
    return expires_at


def retrieve_session(account: Account, call: ApiCall) -> Json:
    """Retrieve a session by id. Raises ApiError (404)."""
    return session_object(account.session(call.target), account.base_url)


def list_line_items(account: Account, call: ApiCall) -> Json:
    """List the one line item of a session."""
    return line_items(account.session(call.target))


def list_sessions(account: Account, call: ApiCall) -> Json:
    """List sessions, newest first; filters: created, payment_intent, status."""
    clauses: list[Clause] = []
    for name, column in (("payment_intent", "payment"), ("status", "status")):
        wanted = forms.text(call.params, name)
        if wanted == "complete" and column == "status":
            clauses.append(("status IN (?, ?, ?)", COMPLETE))
        elif wanted is not None:
            clauses.append((f"{column} = ?", (wanted,)))
    rows, more = page_of(account, "sessions", call.params, clauses)
    data = [session_object(Session.from_row(row), account.base_url) for row in rows]
    return page_object(data, more, "/v1/checkout/sessions")


def expire_session(account: Account, call: ApiCall) -> Json:
    """Expire an open session. Raises ApiError when it is not open."""
    session = account.session(call.target)
    if session.status != "open":
        raise invalid_state(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a'
            f" status of `{session.status}`.",
            "checkout_session_not_open",
        )
    return end_unpaid(account, session, call)


def end_unpaid(account: Account, session: Session, call: ApiCall | None = None) -> Json:
    """Expire an open session, cancel its payment intent if a card was tried, and emit the event."""
    account.journal.write("UPDATE sessions SET status = 'expired' WHERE n = ?", (session.n,))
    if session.payment is not None:
        account.journal.write("UPDATE payments SET status = 'canceled' WHERE id = ?", (session.payment,))
    ended = session_object(session._replace(status="expired"), account.base_url)
    pledge = ended["metadata"].get("ataa_pledge") or ended["client_reference_id"]
    account.events.emit("checkout.session.expired", Subject(session.payment, session.id, pledge), ended, call)
    return ended


def expire_overdue(account: Account, most: int = 500) -> None:
    """Expire the open sessions whose `expires_at` has passed, at most `most` of them."""
    rows = account.journal.rows(
        "SELECT * FROM sessions WHERE status = 'open' AND expires_at <= ? ORDER BY expires_at LIMIT ?",
        (int(account.clock()), most),
    )
    for row in rows:
        end_unpaid(account, Session.from_row(row))
