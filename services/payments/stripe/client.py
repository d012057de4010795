"""Stripe's implementation of the `Processor` protocol: StripeClient over aiohttp, without its retries.

Requests use `raw_request_async`, which has the client's authentication, version and errors but does
not convert each response into Stripe objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Final

import aiohttp
import stripe
from prometheus_client import Counter

from backbone.database.columns import microseconds
from backbone.money import Money
from backbone.stripe_amounts import UnsupportedAmount, to_stripe
from backbone.stripe_keys import is_live
from services.payments.domain import FactKind, Observation
from services.payments.processor import (
    CheckoutRequest,
    CreatedLink,
    Foreign,
    LinkRequest,
    ListedCheckout,
    ListedFact,
    ListedFacts,
    MovementPage,
    OpenedCheckout,
    PayoutState,
    ProcessorError,
    ProcessorEvent,
    Refused,
    TooFast,
    Unavailable,
    Unknown,
    WebhookEndpoint,
)
from services.payments.stripe import balance, payment_links
from services.payments.stripe.events import checkout_outcome, stored
from services.payments.stripe.lists import EXPANDED, PATHS, listed
from services.payments.stripe.marks import is_marked
from services.payments.stripe.objects import (
    dispute_observation,
    intent_capture,
    link_of,
    moment_of,
    ours,
    refund_observation,
    session_capture,
)
from services.payments.stripe.return_addresses import unpaid_address

API_VERSION: Final = "2026-10-28.endive"
PAGE: Final = 100
MAX_PAGES: Final = 10
SESSIONS: Final = "/v1/checkout/sessions"

LOCALES: Final = frozenset(
    (
        "bg", "cs", "da", "de", "el", "en", "en-GB", "es", "es-419", "et", "fi", "fil", "fr", "fr-CA", "hr",
        "hu", "id", "it", "ja", "ko", "lt", "lv", "ms", "mt", "nb", "nl", "pl", "pt", "pt-BR", "ro", "ru",
        "sk", "sl", "sv", "th", "tr", "vi", "zh", "zh-HK", "zh-TW",
    )
)  # fmt: skip
"""Locales of Stripe's checkout page (docs.stripe.com/js/appendix/supported_locales)."""

ADDRESSES: Final = frozenset(("success_url", "return_url", "cancel_url"))
OPTIONAL: Final = frozenset(("customer_email", "locale", "expires_at")) | ADDRESSES
"""Parameters that a checkout can omit, or replace by our own page's address.

Without `expires_at` a session stays open for 24 hours by Stripe's clock
(https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at).
"""

_REQUESTS: Final = Counter("ataa_stripe_requests_total", "Calls to Stripe.", ["endpoint", "outcome"])


_OUTCOMES: Final[Mapping[type[ProcessorError], str]] = {
    TooFast: "rate_limited",
    Refused: "refused",
    Unavailable: "unavailable",
    Unknown: "unknown",
}
"""The metric's `outcome` of each error; `rate_limited` is a 429."""


@cache
def _requests(endpoint: str, outcome: str) -> Counter:
    """The series of an endpoint and outcome, cached: `labels` is slower than the increment itself."""
    return _REQUESTS.labels(endpoint, outcome)


class StripeProcessor:
    """Stripe, or the sandbox at `base`. `donor_url` is the address of our own donor pages."""

    def __init__(
        self, key: str, *, base: str, timeout_s: float, expires_s: int, donor_url: str, in_flight: int
    ) -> None:
        self._key = key
        self._base = base
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._expires_s = expires_s
        self._donor_url = donor_url
        self._in_flight = in_flight
        self._session: aiohttp.ClientSession | None = None
        self._client: stripe.StripeClient | None = None

    def _connected(self) -> stripe.StripeClient:
        """The client, created in the running loop at its first use."""
        if self._client is None:
            connector = aiohttp.TCPConnector(limit=self._in_flight + 8)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
            http = stripe.AIOHTTPClient(timeout=self._timeout, session=self._session)
            self._client = stripe.StripeClient(
                self._key,
                http_client=http,
                max_network_retries=0,
                stripe_version=API_VERSION,
                base_addresses={"api": self._base} if self._base else {},
            )
        return self._client

    async def close(self) -> None:
        """See `Processor.close`."""
        if self._session is not None:
            await self._session.close()
        self._client = self._session = None

    def checkout_parameters(self, request: CheckoutRequest, without: Sequence[str] = ()) -> dict[str, Any]:
        """See `Processor.checkout_parameters`; the session lives for `expires_s` by our clock."""
        self._refuse_real_cards(request.test)
        if unavoidable := [name for name in without if name not in OPTIONAL]:
            raise Refused(f"Stripe refused {unavoidable[0]}", unavoidable[0])
        metadata = {
            "ataa_pledge": request.pledge_id,
            "ataa_payment": request.payment_id,
            "ataa_drive": request.drive_id,
        }
        price = {
            "currency": request.amount.currency.lower(),
            "unit_amount": _stripe_units(request.amount),
            "product_data": {"name": request.title[:200]},
        }
        parameters: dict[str, Any] = {
            "mode": "payment",
            "submit_type": "donate",
            "adaptive_pricing": {"enabled": False},
            "client_reference_id": request.pledge_id,
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
            "line_items": [{"price_data": price, "quantity": 1}],
            **self._addresses(request, without),
        }
        if "expires_at" not in without:
            parameters["expires_at"] = microseconds(request.made_at) // 1_000_000 + self._expires_s
        if request.email and "customer_email" not in without:
            parameters["customer_email"] = request.email
        if "locale" not in without:
            parameters["locale"] = _locale(request.locale)
        return parameters

    def _addresses(self, request: CheckoutRequest, without: Sequence[str]) -> dict[str, Any]:
        ours = f"{self._donor_url}/donate/{request.slug}"
        refused = not ADDRESSES.isdisjoint(without)
        thanks = (
            request.return_url
            if request.return_url and not refused
            else f"{ours}/thanks?pledge={request.pledge_id}"
        )
        if request.mode == "embedded":
            return {"ui_mode": "embedded_page", "return_url": thanks}
        unpaid = unpaid_address(None if refused else request.return_url, ours, request.slug)
        return {"ui_mode": "hosted_page", "success_url": thanks, "cancel_url": unpaid}

    def _refuse_real_cards(self, is_test: bool) -> None:
        if is_test and is_live(self._key):
            raise Refused("a test drive must not charge real cards, and Stripe's key is a live key")

    def link_parameters(self, request: LinkRequest) -> dict[str, Any]:
        """See `Processor.link_parameters`."""
        self._refuse_real_cards(request.test)
        return payment_links.link_parameters(request, _stripe_units(request.amount), self._donor_url)

    def link_address(self, url: str, reference: str, locale: str | None) -> str:
        """See `Processor.link_address`."""
        return payment_links.link_address(url, reference, None if locale is None else _locale(locale))

    async def create_link(self, key: str, parameters: Mapping[str, Any]) -> CreatedLink:
        """See `Processor.create_link`."""
        answer = await self._call("post", payment_links.PATH, {**parameters, "idempotency_key": key})
        with _readable():
            return CreatedLink(answer["id"], answer["url"])

    async def set_link_active(self, link_id: str, active: bool) -> None:
        """See `Processor.set_link_active`."""
        await self._call("post", f"{payment_links.PATH}/{link_id}", {"active": "true" if active else "false"})

    async def open_checkout(self, key: str, parameters: Mapping[str, Any]) -> OpenedCheckout:
        """See `Processor.open_checkout`."""
        answer = await self._call("post", SESSIONS, {**parameters, "idempotency_key": key})
        with _readable():
            return _opened(answer)

    async def expire_checkout(self, session_id: str) -> None:
        """See `Processor.expire_checkout`."""
        await self._call("post", f"{SESSIONS}/{session_id}/expire", {})

    async def read_checkout(self, session_id: str) -> Observation | None:
        """See `Processor.read_checkout`."""
        answer = await self._respond("get", f"{SESSIONS}/{session_id}", {"expand": ["payment_intent"]})
        with _readable():
            return checkout_outcome(answer.data, _told_at(answer.headers))

    async def list_checkouts(
        self, since: datetime, after: str | None
    ) -> tuple[list[ListedCheckout], str | None]:
        """See `Processor.list_checkouts`."""
        found, following = await self._page(SESSIONS, {"created": {"gte": _seconds(since)}}, after)
        with _readable():
            listed = [
                ListedCheckout(ours(each)["payment_id"], _opened(each), moment_of(each["created"]))
                for each in found
            ]
        return listed, following

    def refund_parameters(
        self, intent: str, amount: Money, refund_id: str, reason: str | None
    ) -> dict[str, Any]:
        """See `Processor.refund_parameters`."""
        metadata = {"ataa_refund": refund_id} | ({"reason": reason[:500]} if reason else {})
        return {"payment_intent": intent, "amount": _stripe_units(amount), "metadata": metadata}

    async def refund(self, key: str, parameters: Mapping[str, Any]) -> Observation:
        """See `Processor.refund`."""
        answer = await self._call("post", "/v1/refunds", {**parameters, "idempotency_key": key})
        with _readable():
            found = refund_observation(answer)
        if found is None:
            raise Unknown("the refund names no payment intent")
        return found

    async def list_refunds(self, intent: str) -> list[Observation]:
        """See `Processor.list_refunds`."""
        observations: list[Observation] = []
        after: str | None = None
        for _ in range(MAX_PAGES):
            found, after = await self._page("/v1/refunds", {"payment_intent": intent}, after)
            with _readable():
                observations += [
                    observation for each in found if (observation := refund_observation(each)) is not None
                ]
            if after is None:
                break
        return observations

    async def list_disputes(self, intent: str) -> list[Observation]:
        """See `Processor.list_disputes`; a payment has at most a few."""
        listed, _, told_at = await self._timed_page("/v1/disputes", {"payment_intent": intent}, None)
        with _readable():
            found = [dispute_observation(each, told_at) for each in listed]
        return [each for each in found if each is not None]

    async def find_capture(self, intent: str) -> Observation | Foreign | None:
        """See `Processor.find_capture`. The capture's time is the intent's creation: Stripe has no other."""
        try:
            answer = await self._call("get", f"/v1/payment_intents/{intent}", {})
        except Refused:
            return None
        if link_of(answer) is not None:
            return await self._link_capture(answer)
        marked = answer if is_marked(answer) else await self._marked_checkout(intent)
        with _readable():
            captured = answer["status"] == "succeeded"
            marks = {name: (marked or answer).get(name) for name in ("metadata", "client_reference_id")}
            found = intent_capture({**answer, **marks}, moment_of(answer["created"])) if captured else None
        return Foreign(found) if marked is None else found

    async def _link_capture(self, intent: Mapping[str, Any]) -> Observation | None:
        """The capture of an intent made through a link, as its session reports it: that has the reference.

        Raises `Unknown` where Stripe lists no paid session of a paid intent.
        """
        with _readable():
            if intent["status"] != "succeeded":
                return None
            sessions, _ = await self._page(SESSIONS, {"payment_intent": intent["id"]}, None)
            for each in sessions:
                if (capture := session_capture(each, moment_of(intent["created"]))) is not None:
                    return capture
        raise Unknown("a payment through a link has no paid session")

    async def _marked_checkout(self, intent: str) -> dict[str, Any] | None:
        """The checkout session that created a payment intent, if it carries our metadata."""
        sessions, _ = await self._page(SESSIONS, {"payment_intent": intent}, None)
        return next((each for each in sessions if is_marked(each)), None)

    async def list_lost_events(
        self, since: datetime, after: str | None
    ) -> tuple[list[ProcessorEvent], str | None]:
        """See `Processor.list_lost_events`."""
        query = {"delivery_success": "false", "created": {"gte": _seconds(since)}}
        found, following = await self._page("/v1/events", query, after)
        with _readable():
            return [stored(each, json.dumps(each).encode()) for each in found], following

    async def list_facts(
        self, kind: FactKind, since: datetime, until: datetime, after: str | None
    ) -> ListedFacts:
        """See `Processor.list_facts`."""
        query = {"created": {"gte": _seconds(since), "lte": _seconds(until)}, **EXPANDED[kind]}
        found, following, told_at = await self._timed_page(PATHS[kind], query, after)
        return listed(kind, found, following, told_at)

    async def read_fact(self, kind: FactKind, fact_id: str) -> ListedFact | None:
        """See `Processor.read_fact`."""
        try:
            answer = await self._respond("get", f"{PATHS[kind]}/{fact_id}", {"expand": ["payment_intent"]})
        except Refused:
            return None
        return next(iter(listed(kind, [answer.data], None, _told_at(answer.headers)).facts), None)

    async def list_movements(
        self, after: str | None, *, since: datetime | None = None, payout: str | None = None
    ) -> MovementPage:
        """See `Processor.list_movements`."""
        query: dict[str, Any] = {"payout": payout} if payout else {}
        if since is not None:
            query["created"] = {"gte": _seconds(since)}
        found, following = await self._page(balance.PATH, {**query, **balance.EXPANDED}, after)
        return balance.movement_page(found, following)

    async def read_payout(self, payout_id: str) -> PayoutState | None:
        """See `Processor.read_payout`."""
        try:
            answer = await self._call("get", f"/v1/payouts/{payout_id}", {})
        except Refused:
            return None
        with _readable():
            return balance.payout_state(answer)

    async def list_webhook_endpoints(self) -> list[WebhookEndpoint]:
        """See `Processor.list_webhook_endpoints`."""
        endpoints: list[WebhookEndpoint] = []
        after: str | None = None
        for _ in range(MAX_PAGES):
            found, after = await self._page("/v1/webhook_endpoints", {}, after)
            with _readable():
                endpoints += [_endpoint(each) for each in found]
            if after is None:
                break
        return endpoints

    async def _page(
        self, path: str, query: Mapping[str, Any], after: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """One page of a list, newest first, and the id after which the next page begins."""
        found, following, _ = await self._timed_page(path, query, after)
        return found, following

    async def _timed_page(
        self, path: str, query: Mapping[str, Any], after: str | None
    ) -> tuple[list[dict[str, Any]], str | None, datetime]:
        """As `_page`, with the time of the response by Stripe's clock."""
        cursor = {"starting_after": after} if after else {}
        answer = await self._respond("get", path, {**query, **cursor, "limit": PAGE})
        with _readable():
            found: list[dict[str, Any]] = answer.data["data"]
            following = found[-1]["id"] if answer.data["has_more"] and found else None
            return found, following, _told_at(answer.headers)

    async def _call(self, method: str, path: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The body of one request's response; raises `ProcessorError` and nothing else."""
        thing: dict[str, Any] = (await self._respond(method, path, parameters)).data
        return thing

    async def _respond(self, method: str, path: str, parameters: Mapping[str, Any]) -> Any:
        """One request's response with its headers; raises `ProcessorError` and nothing else."""
        endpoint = "checkout_sessions" if path.startswith(SESSIONS) else path.split("/")[2]
        try:
            answer = await self._connected().raw_request_async(method, path, **parameters)
        except Exception as error:
            failure = _failure(error)
            _requests(endpoint, _OUTCOMES.get(type(failure), "unknown")).inc()
            raise failure from error
        _requests(endpoint, "ok").inc()
        return answer


@contextmanager
def _readable() -> Iterator[None]:
    """Raises `Unknown` for a response that cannot be read (a status or currency new at Stripe).

    Any other exception would end the worker, again at each start, and block the queue behind the item.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise Unknown(f"unreadable response: {type(error).__name__}: {error}"[:500]) from error


def _failure(error: Exception) -> ProcessorError:
    """Classify an error by whether the request was carried out (docs.stripe.com/error-low-level)."""
    reason = f"{type(error).__name__}: {error}"[:500]
    match error:
        case stripe.RateLimitError():
            return TooFast(reason)
        case stripe.IdempotencyError():
            # The key was used with other parameters, so an operation of ours may have happened under it.
            return Unknown(reason, replayed=True)
        case stripe.AuthenticationError() | stripe.PermissionError():
            return Unavailable(reason)
        case stripe.InvalidRequestError() | stripe.CardError():
            return Refused(reason, error.param)
        case stripe.StripeError():
            return Unknown(reason, replayed=_replayed(error))
        case _:
            return Unknown(reason)


def _replayed(error: stripe.StripeError) -> bool:
    return str((error.headers or {}).get("Idempotent-Replayed", "")).lower() == "true"


def _told_at(headers: Mapping[str, str]) -> datetime:
    """The time of a response by Stripe's clock, as in events; by ours where the header is missing."""
    with suppress(KeyError, ValueError):
        return parsedate_to_datetime(headers["date"]).astimezone(UTC)
    return datetime.now(UTC).replace(microsecond=0)


def _opened(session: Mapping[str, Any]) -> OpenedCheckout:
    return OpenedCheckout(
        session["id"], session.get("url"), session.get("client_secret"), moment_of(session["expires_at"])
    )


def _endpoint(thing: Mapping[str, Any]) -> WebhookEndpoint:
    return WebhookEndpoint(thing["url"], thing["status"] == "enabled", frozenset(thing["enabled_events"]))


def _stripe_units(amount: Money) -> int:
    try:
        return to_stripe(amount.minor_units, amount.currency)
    except UnsupportedAmount as error:
        raise Refused(str(error), "amount") from error


def _locale(wanted: str | None) -> str:
    """The nearest locale of Stripe's page; `auto` uses the donor's browser."""
    if wanted is None:
        return "auto"
    if wanted in LOCALES:
        return wanted
    language = wanted.replace("_", "-").split("-")[0].lower()
    return language if language in LOCALES else "auto"


def _seconds(at: datetime) -> int:
    return microseconds(at) // 1_000_000
