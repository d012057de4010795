"""Forwarding of API requests to the services: authentication, limits, and the headers that are forwarded.

Only a fixed list of the client's headers is forwarded, so a client can send neither `Ataa-…` headers nor
hop-by-hop headers (RFC 9110, 7.6.1) to a service. The services validate everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from backbone.http.problems import BodyTooLarge, Forbidden, Unauthorized, UnsupportedMediaType
from backbone.http.service_client import ServiceClient, ServiceResponse
from backbone.idempotency import optional_key, required_key
from backbone.telemetry import TRACEPARENT
from gateway.access.keys import Bearer, KeyRing
from gateway.access.limits import ConcurrencyLimit, RateLimits
from gateway.http.asgi import BODY_LIMIT, Header, Request, Response
from gateway.http.router import Handler, Route

_REQUEST_HEADERS: Final[tuple[str, ...]] = (
    "accept",
    "content-type",
    "idempotency-key",
    "if-none-match",
    "accept-language",
    "stripe-signature",
    "user-agent",
)
"""The client's headers that a service receives."""

_RESPONSE_HEADERS: Final = frozenset(
    {
        "content-type", "content-disposition", "retry-after", "etag", "cache-control", "idempotency-replayed",
        "location", "allow",
    }
)  # fmt: skip
"""A service's headers that the client receives."""

NO_HEADERS: Final[Mapping[str, str]] = {}
WEBHOOK_LIMIT: Final = 1024 * 1024
"""Bytes of a webhook's body."""

KeyRule = Literal["none", "optional", "required"]


@dataclass(frozen=True, slots=True)
class ProxyRoute:
    """A route whose requests and responses are forwarded unchanged.

    `scope` is the scope the API key must have, `concurrency_limit` names the limit it counts against, and
    `publishable` is true if a publishable key is accepted without the scope.
    """

    method: str
    pattern: str
    service: str
    scope: str
    concurrency_limit: str
    publishable: bool = False
    idempotency: KeyRule = "none"


PROXY_ROUTES: Final = (
    ProxyRoute("POST", "/v1/drives", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("GET", "/v1/drives", "pledges", "drives", "reads"),
    ProxyRoute("GET", "/v1/drives/{drive}", "pledges", "drives", "reads", publishable=True),
    ProxyRoute("PATCH", "/v1/drives/{drive}", "pledges", "drives", "changes"),
    ProxyRoute("POST", "/v1/drives/{drive}/open", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/drives/{drive}/pause", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/drives/{drive}/resume", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/drives/{drive}/close", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/drives/{drive}/creators", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("GET", "/v1/drives/{drive}/creators", "pledges", "drives", "reads", publishable=True),
    ProxyRoute("POST", "/v1/pledges/{id}/cancel", "pledges", "pledges", "changes", idempotency="optional"),
    ProxyRoute("GET", "/v1/drives/{drive}/messages", "pledges", "moderation", "reads"),
    ProxyRoute("GET", "/v1/drives/{drive}/decisions", "pledges", "moderation", "reads"),
    ProxyRoute("GET", "/v1/messages/{id}/history", "pledges", "moderation", "reads"),
    ProxyRoute("POST", "/v1/messages/{id}/approve", "pledges", "moderation", "changes"),
    ProxyRoute("POST", "/v1/messages/{id}/hide", "pledges", "moderation", "changes"),
    ProxyRoute("POST", "/v1/messages/{id}/pin", "pledges", "moderation", "changes"),
    ProxyRoute("POST", "/v1/messages/{id}/unpin", "pledges", "moderation", "changes"),
    ProxyRoute("POST", "/v1/messages/{id}/hold", "pledges", "moderation", "changes"),
    ProxyRoute("POST", "/v1/drives/{drive}/alerts/pause", "pledges", "moderation", "changes"),
    ProxyRoute("POST", "/v1/drives/{drive}/alerts/resume", "pledges", "moderation", "changes"),
    ProxyRoute("POST", "/v1/drives/{drive}/alerts/skip", "pledges", "moderation", "changes"),
    ProxyRoute("POST", "/v1/drives/{drive}/alerts/replay", "pledges", "moderation", "changes"),
    ProxyRoute("POST", "/v1/pledges/{id}/refunds", "payments", "refunds", "changes", idempotency="required"),
    ProxyRoute("GET", "/v1/payments", "payments", "ledger", "reads"),
    ProxyRoute("GET", "/v1/payments/{id}", "payments", "ledger", "reads"),
    ProxyRoute("POST", "/v1/payments/{id}/release", "payments", "ledger", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/payments/{id}/refunds", "payments", "refunds", "changes", idempotency="required"),
    ProxyRoute("GET", "/v1/refunds", "payments", "refunds", "reads"),
    ProxyRoute("POST", "/v1/refunds/{refund}/approve", "payments", "refunds", "changes"),
    ProxyRoute("POST", "/v1/refunds/{refund}/reject", "payments", "refunds", "changes"),
    ProxyRoute(
        "POST", "/v1/drives/{drive}/offline-gifts", "payments", "offline", "changes", idempotency="required"
    ),
    ProxyRoute("GET", "/v1/offline-gifts", "payments", "offline", "reads"),
    ProxyRoute("POST", "/v1/offline-gifts/{gift}/approve", "payments", "offline", "changes"),
    ProxyRoute("POST", "/v1/offline-gifts/{gift}/reject", "payments", "offline", "changes"),
    ProxyRoute("POST", "/v1/offline-gifts/{gift}/reverse", "payments", "offline", "changes"),
    ProxyRoute(
        "POST", "/v1/drives/{drive}/matching-pools", "payments", "drives", "changes", idempotency="optional"
    ),
    ProxyRoute("GET", "/v1/drives/{drive}/matching-pools", "payments", "drives", "reads"),
    ProxyRoute("POST", "/v1/matching-pools/{pool}/end", "payments", "drives", "changes"),
    ProxyRoute("GET", "/v1/drives/{drive}/ledger", "payments", "ledger", "reads"),
    ProxyRoute("GET", "/v1/drives/{drive}/trial-balance", "payments", "ledger", "reads"),
    ProxyRoute("GET", "/v1/drives/{drive}/statement", "payments", "ledger", "reads"),
    ProxyRoute("PUT", "/v1/rates/{source}/{target}", "payments", "admin", "changes"),
    ProxyRoute("GET", "/v1/rates", "payments", "drives", "reads"),
    ProxyRoute("GET", "/v1/payouts", "payments", "admin", "reads"),
    ProxyRoute(
        "POST", "/v1/drives/{drive}/contributions", "payments", "offline", "changes", idempotency="optional"
    ),
    ProxyRoute("GET", "/v1/contributions", "payments", "offline", "reads"),
    ProxyRoute("POST", "/v1/contributions/{contribution}/approve", "payments", "offline", "changes"),
    ProxyRoute("POST", "/v1/contributions/{contribution}/reject", "payments", "offline", "changes"),
    ProxyRoute(
        "POST", "/v1/drives/{drive}/disbursements", "payments", "ledger", "changes", idempotency="optional"
    ),
    ProxyRoute("GET", "/v1/disbursements", "payments", "ledger", "reads"),
    ProxyRoute("POST", "/v1/disbursements/{disbursement}/approve", "payments", "ledger", "changes"),
    ProxyRoute("POST", "/v1/disbursements/{disbursement}/reject", "payments", "ledger", "changes"),
    ProxyRoute("POST", "/v1/disbursements/{disbursement}/reverse", "payments", "ledger", "changes"),
    ProxyRoute("GET", "/v1/checkouts", "payments", "admin", "reads"),
    ProxyRoute("POST", "/v1/checkouts/pause", "payments", "admin", "changes"),
    ProxyRoute("POST", "/v1/checkouts/resume", "payments", "admin", "changes"),
    ProxyRoute("GET", "/v1/webhooks", "payments", "admin", "reads"),
    ProxyRoute("POST", "/v1/webhooks/{id}/retry", "payments", "admin", "changes"),
    ProxyRoute("POST", "/v1/keys", "keys", "admin", "changes", idempotency="optional"),
    ProxyRoute("GET", "/v1/keys", "keys", "admin", "reads"),
    ProxyRoute("DELETE", "/v1/keys/{id}", "keys", "admin", "changes"),
)
"""Routes that need nothing but an API key. Those of pledges and leaderboards have handlers of their own."""


class Forwarder:
    """Authenticates requests and forwards them to the services."""

    def __init__(
        self,
        service_clients: Mapping[str, ServiceClient],
        key_ring: KeyRing,
        limits: RateLimits,
        concurrency_limits: Mapping[str, ConcurrencyLimit],
    ) -> None:
        self.key_ring = key_ring
        self.limits = limits
        self.concurrency_limits = concurrency_limits
        self._service_clients = service_clients

    def routes(self) -> list[Route]:
        """The routes forwarded unchanged."""
        return [
            *(Route(one.method, one.pattern, self._handler(one)) for one in PROXY_ROUTES),
            Route("POST", "/webhooks/stripe", self.receive_webhook),
        ]

    def _handler(self, route: ProxyRoute) -> Handler:
        concurrency_limit = self.concurrency_limits[route.concurrency_limit]

        async def handle(request: Request) -> Response:
            bearer = self.authenticate(request)
            if not (route.publishable and bearer.kind == "publishable"):
                refuse_publishable(bearer)
                bearer.require(route.scope)
            body = b""
            if request.method in ("POST", "PUT", "PATCH"):
                body = await json_body(request)
                if route.idempotency != "none":
                    await check_idempotency_key(request, required=route.idempotency == "required")
            with concurrency_limit:
                return response_of(await self.forward(request, route.service, bearer, body))

        return handle

    def authenticate(self, request: Request) -> Bearer:
        """The bearer of the request's API key.

        Raises `Unauthorized` for a missing or invalid key, `OriginNotAllowed` for a publishable key used
        from another origin, and `TooManyRequests` past a rate limit.
        """
        headers = request.headers
        try:
            bearer = self.key_ring.find(headers.get("authorization"))
        except Unauthorized:
            self.limits.spend(self.key_ring.public, request.address)  # guessing keys is limited too
            raise
        bearer.require_origin(headers.get("origin"))
        self.limits.spend(bearer, request.address)
        return bearer

    async def forward(
        self,
        request: Request,
        service: str,
        bearer: Bearer,
        body: bytes = b"",
        extra_headers: Mapping[str, str] = NO_HEADERS,
    ) -> ServiceResponse:
        """The service's reply to the request, sent with the signed identity of `bearer`.

        Raises `ServiceUnavailable`.
        """
        received = request.headers
        headers: dict[str, str] = {name: received[name] for name in _REQUEST_HEADERS if name in received}
        headers.update(bearer.signed)
        headers.update(extra_headers)
        headers["x-request-id"] = request.request_id
        headers["traceparent"] = TRACEPARENT.get() or ""
        method = "GET" if request.method == "HEAD" else request.method
        return await self._service_clients[service].request(
            method, request.path, headers=headers, body=body, query=request.query
        )

    async def receive_webhook(self, request: Request) -> Response:
        """POST /webhooks/stripe: the body is forwarded byte for byte; payments verifies its signature."""
        body = await request.body(WEBHOOK_LIMIT)
        with self.concurrency_limits["webhooks"]:
            return response_of(await self.forward(request, "payments", self.key_ring.public, body))


async def json_body(request: Request) -> bytes:
    """The body of a request on /v1.

    Raises `UnsupportedMediaType` where there is a body that is not declared as JSON in UTF-8, and
    `BodyTooLarge` above 64 KiB.
    """
    declared = request.declared_length()
    if declared is not None and declared > BODY_LIMIT:
        raise BodyTooLarge(f"At most {BODY_LIMIT} bytes.")
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    is_json = kind.strip().lower() == "application/json" and charset in ("", "charset=utf-8")
    if not is_json and declared != 0:
        raise UnsupportedMediaType("Send Content-Type: application/json, in UTF-8.")
    return await request.body()


def refuse_publishable(bearer: Bearer) -> None:
    """Raises `Forbidden` for a publishable key."""
    if bearer.kind == "publishable":
        raise Forbidden("A publishable key may only make pledges and read.")


async def check_idempotency_key(request: Request, *, required: bool) -> None:
    """Raises a problem where `Idempotency-Key` is malformed, or missing although it is `required`."""
    key = await optional_key(request.headers.get("idempotency-key"))
    if required:
        await required_key(key)


def response_of(
    reply: ServiceResponse, body: bytes | None = None, more: list[Header] | tuple[()] = ()
) -> Response:
    """A service's reply for the client, with `body` in place of its own if given."""
    headers = [
        (name.encode(), value.encode("latin-1"))
        for name, value in reply.headers.items()
        if name in _RESPONSE_HEADERS
    ]
    return Response(reply.status, [*headers, *more], reply.body if body is None else body)
