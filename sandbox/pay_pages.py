"""The payment pages at `/c/pay/{session}`: an HTML form for browsers, JSON for programs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sandbox import forms, payment_intents
from sandbox.account import Account
from sandbox.controls import json_of
from sandbox.currencies import decimal_string
from sandbox.errors import ApiError, invalid, unknown_url
from sandbox.http_server import Reply
from sandbox.page_texts import TEXTS
from sandbox.records import Json, Session
from sandbox.stripe_objects import session_object, to_json

PREFIX: Final = "/c/pay/"
MAX_TEXT_LENGTH: Final = 500


class PayPages:
    """Shows the payment page and charges cards. The form works without JavaScript."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def answer(self, method: str, path: str, language: str, content_type: str, body: bytes) -> Reply:
        session_id, _, action = path.removeprefix(PREFIX).partition("/")
        form = content_type.startswith("application/x-www-form-urlencoded")
        if method == "GET" and action in ("", "authenticate"):
            reply = self._page(session_id, language)
        elif method == "POST" and action == "authenticate":
            reply = self._authenticate(session_id, language, body, form)
        elif method == "POST" and action == "pay":
            reply = self._pay_by_form(session_id, language, body) if form else self._pay(session_id, body)
        else:
            api_error = unknown_url(method, path)
            reply = Reply(api_error.status, to_json(api_error.body()).encode())
        await self._account.journal.durable()
        return reply

    def _pay(self, session_id: str, body: bytes) -> Reply:
        """Charge a card from a JSON request; the reply is JSON."""
        try:
            requested = json_of(body)
            if not isinstance(requested, dict):
                raise invalid("Expected a JSON object.")
            card = _optional_text(requested, "card") or _optional_text(requested, "account")
            if card is None:
                raise invalid("Missing required field: card.", "card", "parameter_missing")
            email, name = _optional_text(requested, "email"), _optional_text(requested, "name")
            outcome = payment_intents.pay(self._account, session_id, card, email, name)
        except ApiError as api_error:
            unpaid = {"payment_status": "unpaid", **api_error.body()}
            return Reply(api_error.status, to_json(unpaid).encode())
        return Reply(200, to_json(self._outcome_shown(outcome)).encode())

    def _authenticate(self, session_id: str, language: str, body: bytes, form: bool) -> Reply:
        """End the authentication of a card; `outcome` is `succeed` or `fail`, in a form or in JSON."""
        try:
            requested = forms.decode(body.decode("utf-8", "replace")) if form else json_of(body)
            asked = requested.get("outcome") if isinstance(requested, dict) else None
            if asked not in ("succeed", "fail"):
                raise invalid("outcome must be succeed or fail.", "outcome")
            outcome = payment_intents.authenticate(self._account, session_id, asked == "succeed")
        except ApiError as api_error:
            if form:
                return _not_found(language) if api_error.status == 404 else self._page(session_id, language)
            unpaid = {"payment_status": "unpaid", **api_error.body()}
            return Reply(api_error.status, to_json(unpaid).encode())
        if form:
            return self._after_form(outcome, language)
        return Reply(200, to_json(self._outcome_shown(outcome)).encode())

    def _pay_by_form(self, session_id: str, language: str, body: bytes) -> Reply:
        """Charge a card from the form; show the page with the error, or redirect to the session's address."""
        try:
            params = forms.decode(body.decode("utf-8", "replace"))
            card = forms.text(params, "card") or ""
            email, name = forms.text(params, "email"), forms.text(params, "name")
            outcome = payment_intents.pay(self._account, session_id, card, email, name)
        except ApiError as api_error:
            if api_error.status == 404:
                return _not_found(language)
            return self._page(session_id, language, api_error.error.get("code"))
        return self._after_form(outcome, language)

    def _after_form(self, outcome: payment_intents.Outcome, language: str) -> Reply:
        session = outcome.session
        if outcome.decline is not None:
            return self._page(session.id, language, outcome.decline["decline_code"])
        address = next_address(session)
        if outcome.authenticates:
            address = payment_intents.authentication_url(self._account, session)
        if address is None:
            return self._page(session.id, language)
        return Reply(303, b"", {"Location": address})

    def _page(self, session_id: str, language: str, problem: str | None = None) -> Reply:
        try:
            session = self._account.session(session_id)
        except ApiError:
            return _not_found(language)
        shown = session_object(session, "")
        language = page_language(shown["locale"], language)
        status: str = shown["status"]
        if status == "open" and session.expires_at <= self._account.clock():
            status = "expired"
        elif status == "open" and problem is None and self._asks_for_authentication(session):
            status = "authenticate"
        elif session.status in ("settling", "unsettled"):
            status = session.status
        html = _render(
            language=language,
            status=status,
            amount=amount_shown(session, language),
            product=session.requested["product"],
            session=shown,
            problem=problem,
            next_address=next_address(session),
        )
        return _html(200, html)

    def _asks_for_authentication(self, session: Session) -> bool:
        payment = self._account.payment(session.payment) if session.payment else None
        return payment is not None and payment.status == "requires_action"

    def _outcome_shown(self, outcome: payment_intents.Outcome) -> Json:
        session = outcome.session
        object_shown = session_object(session, "")
        shown = {
            "id": session.id,
            "status": object_shown["status"],
            "payment_status": object_shown["payment_status"],
            "payment_intent": session.payment,
        }
        if outcome.decline is not None:
            return shown | {
                "decline_code": outcome.decline["decline_code"],
                "message": outcome.decline["message"],
            }
        if outcome.authenticates:
            url = payment_intents.authentication_url(self._account, session)
            return shown | {"intent_status": "requires_action", "authentication_url": url}
        return shown | {"redirect_url": next_address(session)}


def _optional_text(requested: dict[str, Any], name: str) -> str | None:
    value = requested.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH:
        raise invalid(f"{name} must be a string of at most {MAX_TEXT_LENGTH} characters.", name)
    return value


def next_address(session: Session) -> str | None:
    """The success or return address of a paid session, with the session's id filled in."""
    shown = session_object(session, "")
    address: str | None = shown["success_url"] or shown["return_url"]
    return address.replace("{CHECKOUT_SESSION_ID}", session.id) if address else None


def page_language(locale: str | None, accepted: str) -> str:
    """`ar` or `en`: the session's locale, or the browser's first language when the locale is `auto`."""
    wanted = locale if locale and locale != "auto" else accepted
    return "ar" if wanted.strip().lower().startswith("ar") else "en"


def amount_shown(session: Session, language: str) -> str:
    """The amount as a reader of the language writes it, such as `$25.00`."""
    from sandbox.amount_text import amount_text  # imports Babel, which only the page needs

    return amount_text(decimal_string(session.amount, session.currency), session.currency, language)


@lru_cache(maxsize=1)
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only the page needs it

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("pay.html")


def _render(language: str, **values: Any) -> str:
    texts = TEXTS[language]
    problem = values.pop("problem")
    message = texts.get(f"problem_{problem}", texts["problem_other"]) if problem else None
    html: str = _template().render(language=language, texts=texts, problem=message, **values)
    return html


def _html(status: int, html: str) -> Reply:
    return Reply(status, html.encode(), {"Cache-Control": "no-store"}, "text/html; charset=utf-8")


def _not_found(language: str) -> Reply:
    nothing = {"amount": "", "product": "", "session": None, "problem": None, "next_address": None}
    return _html(404, _render(page_language(None, language), status="unknown", **nothing))
