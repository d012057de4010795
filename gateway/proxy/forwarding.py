"""What the gateway passes on: who may, in what form, and to whom. The rest is the services' to say.

Nothing of the caller's headers travels but a short list, so neither `Ataa-…` nor hop-by-hop headers
(RFC 9110, 7.6.1) can be smuggled in.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from backbone import ids
from backbone.clock import Clock, rfc3339
from backbone.http.problems import BodyTooLarge, Forbidden, NotFound, Unauthorized, UnsupportedMediaType
from backbone.http.service_client import ServiceClient, ServiceResponse, ServiceUnavailable
from backbone.idempotency import optional_key, required_key
from backbone.telemetry import TRACEPARENT
from gateway.access.keys import Bearer, KeyRing
from gateway.access.limits import ConcurrencyLimit, RateLimit, is_loopback
from gateway.http.asgi import BODY_LIMIT, Header, Request, Response, json_response, matches
from gateway.http.router import Cors, Handler, Route
from gateway.pages import check_form_token
from gateway.proxy.waits import Facts, Waits, pledge_view, preferred_wait_s, status_of

_REQUEST_HEADERS: Final[tuple[str, ...]] = (
    "content-type",
    "idempotency-key",
    "if-none-match",
    "accept-language",
    "stripe-signature",
    "user-agent",
)
_RESPONSE_HEADERS: Final = frozenset(
    {"content-type", "retry-after", "etag", "cache-control", "idempotency-replayed", "location", "allow"}
)
_NO_HEADERS: Final[Mapping[str, str]] = {}
WEBHOOK_LIMIT: Final = 1024 * 1024
BOARD_CACHE_S: Final = 1.0
MAX_CACHED: Final = 1000

KeyRule = Literal["none", "optional", "required"]


class FormExpired(Forbidden):
    slug, title = "form-expired", "This page was open for too long"


@dataclass(frozen=True, slots=True)
class ProxyRoute:
    """A route that is passed on as it is."""

    method: str
    pattern: str
    service: str
    scope: str
    concurrency_limit: str
    publishable: bool = False
    idempotency: KeyRule = "none"


PROXY_ROUTES: Final = (
    ProxyRoute("POST", "/v1/drives", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("GET", "/v1/drives/{drive}", "pledges", "drives", "reads", publishable=True),
    ProxyRoute("PATCH", "/v1/drives/{drive}", "pledges", "drives", "changes"),
    ProxyRoute("POST", "/v1/drives/{drive}/open", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/drives/{drive}/pause", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/drives/{drive}/resume", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/drives/{drive}/close", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/drives/{drive}/creators", "pledges", "drives", "changes", idempotency="optional"),
    ProxyRoute("GET", "/v1/drives/{drive}/creators", "pledges", "drives", "reads", publishable=True),
    ProxyRoute("POST", "/v1/pledges/{id}/cancel", "pledges", "pledges", "changes", idempotency="optional"),
    ProxyRoute("POST", "/v1/pledges/{id}/refunds", "payments", "refunds", "changes", idempotency="required"),
    ProxyRoute("GET", "/v1/webhooks", "payments", "admin", "reads"),
    ProxyRoute("POST", "/v1/webhooks/{id}/retry", "payments", "admin", "changes"),
    ProxyRoute("POST", "/v1/keys", "keys", "admin", "changes", idempotency="optional"),
    ProxyRoute("GET", "/v1/keys", "keys", "admin", "reads"),
    ProxyRoute("DELETE", "/v1/keys/{id}", "keys", "admin", "changes"),
)
"""Routes with a key and nothing else to them; the others have handlers of their own."""


class RateLimits:
    """Who is counted against which limit."""

    def __init__(self, key: RateLimit, address: RateLimit) -> None:
        self._key = key
        self._address = address

    def spend(self, bearer: Bearer, address: str) -> None:
        """Raises `TooManyRequests`. Secret and admin keys have no limit, loopback no address limit."""
        if bearer.kind in ("secret", "admin"):
            return
        if not is_loopback(address):
            self._address.take(address)
        if bearer.key_id:
            self._key.take(bearer.key_id)


class Proxy:
    """Passes requests on to the services."""

    def __init__(
        self,
        service_clients: Mapping[str, ServiceClient],
        ring: KeyRing,
        limits: RateLimits,
        concurrency_limits: Mapping[str, ConcurrencyLimit],
        waits: Waits,
        clock: Clock,
        secret: str,
        public_url: str,
        as_of: Callable[[str], datetime | None],
    ) -> None:
        self._service_clients = service_clients
        self._ring = ring
        self._limits = limits
        self._concurrency_limits = concurrency_limits
        self._waits = waits
        self._clock = clock
        self._secret = secret.encode()
        self._public_url = public_url
        self._as_of = as_of
        self._boards: OrderedDict[str, tuple[float, ServiceResponse]] = OrderedDict()
        self._reading: dict[str, asyncio.Task[ServiceResponse]] = {}

    def routes(self) -> list[Route]:
        """Everything that is passed on."""
        live: Cors = "live"
        return [
            *(Route(one.method, one.pattern, self._handler(one)) for one in PROXY_ROUTES),
            Route("POST", "/v1/drives/{drive}/pledges", self.make_pledge, "keyed"),
            Route("GET", "/v1/pledges", self.list_pledges),
            Route("GET", "/v1/pledges/{id}", self.read_pledge, "keyed"),
            Route("POST", "/webhooks/stripe", self.receive_webhook),
            Route("GET", "/v1/drives/{drive}/leaderboards/{board}", self.read_board, live),
            Route("GET", "/v1/drives/{drive}/events", self.read_board, live),
        ]

    def _handler(self, route: ProxyRoute) -> Handler:
        async def handle(request: Request) -> Response:
            bearer = self._authenticate(request)
            if not (route.publishable and bearer.kind == "publishable"):
                _refuse_publishable(bearer)
                bearer.require(route.scope)
            body = b""
            if request.method in ("POST", "PATCH"):
                body = await json_body(request)
                if route.idempotency != "none":
                    await _check_idempotency_key(request, required=route.idempotency == "required")
            with self._concurrency_limits[route.concurrency_limit]:
                reply = await self._forward(request, route.service, bearer, body)
            return _answer(reply)

        return handle

    def _authenticate(self, request: Request) -> Bearer:
        """The bearer of the request's key, from a place it may come from, within its limits."""
        headers = request.headers
        try:
            bearer = self._ring.find(headers.get("authorization"))
        except Unauthorized:
            self._limits.spend(self._ring.public, request.address)  # guessing keys is limited too
            raise
        bearer.require_origin(headers.get("origin"))
        self._limits.spend(bearer, request.address)
        return bearer

    async def _forward(
        self,
        request: Request,
        service: str,
        bearer: Bearer,
        body: bytes,
        extra_headers: Mapping[str, str] = _NO_HEADERS,
    ) -> ServiceResponse:
        given = request.headers
        headers: dict[str, str] = {name: given[name] for name in _REQUEST_HEADERS if name in given}
        headers.update(bearer.signed)
        headers.update(extra_headers)
        headers["x-request-id"] = request.request_id
        headers["traceparent"] = TRACEPARENT.get() or ""
        method = "GET" if request.method == "HEAD" else request.method
        return await self._service_clients[service].request(
            method, request.path, headers=headers, body=body, query=request.query
        )

    # Pledges.

    async def make_pledge(self, request: Request) -> Response:
        """POST /v1/drives/{drive}/pledges: the donate path."""
        bearer = self._form_bearer(request) or self._authenticate(request)
        bearer.require("pledges")
        body = await json_body(request)
        await _check_idempotency_key(request, required=True)
        with self._concurrency_limits["pledges"]:
            reply = await self._forward(request, "pledges", bearer, body)
        wait_s = preferred_wait_s(request.headers.get("prefer"))
        if reply.status != 201 or not (wait_s or "idempotency-replayed" in reply.headers):
            return _answer(reply)  # a fresh pledge has no checkout yet, and says so
        return await self._with_checkout(request, reply, wait_s)

    def _form_bearer(self, request: Request) -> Bearer | None:
        """A page of ours: a form token for this drive, from the same origin; None without one."""
        token = request.headers.get("ataa-form-token")
        if token is None or "authorization" in request.headers:
            return None
        if not self._is_own_origin(request):
            raise FormExpired("The form may only be sent from its own page.")
        if not check_form_token(self._secret, request.params[0], token, self._clock.now()):
            raise FormExpired("Load the page again.")
        self._limits.spend(self._ring.form, request.address)
        return self._ring.form

    def _is_own_origin(self, request: Request) -> bool:
        origin = request.headers.get("origin", "")
        if self._public_url and origin == self._public_url:
            return True
        return bool(origin) and urlsplit(origin).netloc == request.headers.get("host")

    async def _with_checkout(self, request: Request, reply: ServiceResponse, wait_s: float) -> Response:
        """The pledge once its checkout is there, or once the wait is over."""
        pledge: Facts = reply.json()
        found, applied = None, wait_s > 0 and not self._waits.full
        if applied:
            seen = await self._waits.until(
                pledge["id"],
                lambda _, entry: _has_checkout(entry),
                wait_s,
                request.disconnected,
                with_pledge=False,
            )
            found = seen and seen[1]
        else:
            with suppress(ServiceUnavailable):  # the pledge is made: that is the answer, whoever else is away
                found = await self._waits.checkouts.look_up(pledge["id"])
        return _answer(
            reply, _json(pledge_view(pledge, found)), _applied_preference(wait_s) if applied else ()
        )

    async def read_pledge(self, request: Request) -> Response:
        """GET /v1/pledges/{id}: by its token, or by its partner's key."""
        pledge_id = request.params[0]
        token = _query_value(request, "token")
        bearer = None
        if token is None or "authorization" in request.headers:
            bearer = self._authenticate(request)
        else:
            self._limits.spend(self._ring.public, request.address)
        if not ids.is_id(pledge_id, "plg"):
            raise NotFound("No such pledge.")
        with self._concurrency_limits["reads"]:
            seen = await self._look_up_pledge(pledge_id)
        _authorize_reader(seen[0], bearer, token)
        wait_s, applied = preferred_wait_s(request.headers.get("prefer")), list[Header]()
        if wait_s and not self._waits.full:
            was = _awaited_fields(*seen)
            seen = (
                await self._waits.until(
                    pledge_id,
                    lambda *now: _awaited_fields(*now) != was,
                    wait_s,
                    request.disconnected,
                    with_pledge=True,
                )
                or seen
            )
            applied = _applied_preference(wait_s)
        entry, checkout = seen
        assert entry is not None
        shown = pledge_view(entry["pledge"], checkout)
        if token is None and bearer is not None and bearer.kind == "publishable":
            shown["token"] = None  # everybody knows a publishable key
        headers = [(b"cache-control", b"private, no-store"), (b"vary", b"Authorization"), *applied]
        return json_response(_json(shown), headers=headers)

    async def list_pledges(self, request: Request) -> Response:
        """GET /v1/pledges: the partner's own, each with what payments knows of it.

        Payments may know more than pledges has heard: one that no longer is in the status asked for
        is left out, so a page may be short.
        """
        bearer = self._authenticate(request)
        _refuse_publishable(bearer)
        bearer.require("pledges")
        with self._concurrency_limits["reads"]:
            reply = await self._forward(request, "pledges", bearer, b"")
            if reply.status != 200:
                return _answer(reply)
            page = reply.json()
            found = await self._waits.checkouts.look_up_all([one["id"] for one in page["data"]])
        wanted = _query_value(request, "status")
        shown = [pledge_view(one, found[one["id"]]) for one in page["data"]]
        page["data"] = [one for one in shown if wanted in (None, one["status"])]
        return json_response(_json(page), headers=[(b"cache-control", b"private, no-store")])

    async def _look_up_pledge(self, pledge_id: str) -> tuple[Facts | None, Facts | None]:
        entry, checkout = await asyncio.gather(
            self._waits.pledges.look_up(pledge_id), self._waits.checkouts.look_up(pledge_id)
        )
        return entry, checkout

    # Without a key.

    async def receive_webhook(self, request: Request) -> Response:
        """POST /webhooks/stripe: the body as it is; payments verifies its signature."""
        body = await request.body(WEBHOOK_LIMIT)
        with self._concurrency_limits["webhooks"]:
            return _answer(await self._forward(request, "payments", self._ring.public, body))

    async def read_board(self, request: Request) -> Response:
        """Boards and the log: leaderboard's answers, each asked for at most once a second."""
        self._limits.spend(self._ring.public, request.address)
        key = f"{request.path}?{request.query}"
        now = asyncio.get_running_loop().time()
        held = self._boards.get(key)
        if held is None or now - held[0] >= BOARD_CACHE_S:
            reply = await self._read_once(key, request)
            if reply.status == 200:
                self._boards[key] = (asyncio.get_running_loop().time(), reply)
                self._boards.move_to_end(key)
                while len(self._boards) > MAX_CACHED:
                    self._boards.popitem(last=False)
        else:
            reply = held[1]
        if reply.status != 200:
            return _answer(reply)
        return _cacheable(request, reply)

    async def _read_once(self, key: str, request: Request) -> ServiceResponse:
        task = self._reading.get(key)
        if task is None:
            with self._concurrency_limits["reads"]:
                pass
            task = self._reading[key] = asyncio.create_task(self._read_board(key, request))
        return await asyncio.shield(task)

    async def _read_board(self, key: str, request: Request) -> ServiceResponse:
        # A replica of leaderboard knows the freshness of the partitions it reads; this gateway, of all.
        as_of = self._as_of(request.params[0])
        extra_headers = {"ataa-as-of": rfc3339(as_of)} if as_of is not None else _NO_HEADERS
        try:
            with self._concurrency_limits["reads"]:
                return await self._forward(request, "leaderboard", self._ring.public, b"", extra_headers)
        finally:
            del self._reading[key]


async def json_body(request: Request) -> bytes:
    """The body of a request on /v1; raises `UnsupportedMediaType` where there is one and it is not JSON."""
    declared = request.declared_length()
    if declared is not None and declared > BODY_LIMIT:
        raise BodyTooLarge(f"At most {BODY_LIMIT} bytes.")
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    fits = kind.strip().lower() == "application/json" and charset in ("", "charset=utf-8")
    if not fits and declared != 0:
        raise UnsupportedMediaType("Send Content-Type: application/json, in UTF-8.")
    return await request.body()


def _refuse_publishable(bearer: Bearer) -> None:
    if bearer.kind == "publishable":
        raise Forbidden("A publishable key may only make pledges and read.")


async def _check_idempotency_key(request: Request, *, required: bool) -> None:
    key = await optional_key(request.headers.get("idempotency-key"))
    if required:
        await required_key(key)


def _authorize_reader(entry: Facts | None, bearer: Bearer | None, token: str | None) -> None:
    """Raises `NotFound` for whoever may not read this pledge, as for one that does not exist.

    A partner's test key on a live pledge: `Forbidden`.
    """
    if entry is None:
        raise NotFound("No such pledge.")
    if token is not None:
        if not hmac.compare_digest(token.encode("utf-8", "replace"), str(entry["pledge"]["token"]).encode()):
            raise NotFound("No such pledge.")
    elif bearer is None or bearer.partner != entry["partner"]:
        raise NotFound("No such pledge.")
    elif bearer.mode == "test" and not entry["test"]:
        raise Forbidden("A test key works on test drives only.")


def _has_checkout(entry: Facts | None) -> bool:
    return entry is not None and (entry["checkout"] is not None or entry["status"] is not None)


def _awaited_fields(entry: Facts | None, checkout: Facts | None) -> tuple[Any, Any]:
    """What a held read waits to see change: `status` and `checkout`."""
    known = checkout or {}
    status = status_of(entry["pledge"], known) if entry else known.get("status")
    return status, known.get("checkout")


def _applied_preference(wait_s: float) -> list[Header]:
    return [(b"preference-applied", f"wait={wait_s:g}".encode())]


def _query_value(request: Request, name: str) -> str | None:
    return dict(parse_qsl(request.query, keep_blank_values=True)).get(name) if request.query else None


def _answer(
    reply: ServiceResponse, body: bytes | None = None, more: list[Header] | tuple[()] = ()
) -> Response:
    headers = [
        (name.encode(), value.encode("latin-1"))
        for name, value in reply.headers.items()
        if name in _RESPONSE_HEADERS
    ]
    return Response(reply.status, [*headers, *more], reply.body if body is None else body)


def _cacheable(request: Request, reply: ServiceResponse) -> Response:
    # A board's own names the state it shows: the same while only `as_of` moves on.
    etag = reply.headers.get("etag") or f'W/"{blake2b(reply.body, digest_size=12).hexdigest()}"'
    headers: list[Header] = [
        (b"etag", etag.encode()),
        (b"cache-control", b"public, max-age=1, s-maxage=1"),
    ]
    if matches(request.headers.get("if-none-match"), etag):
        return Response(304, headers)
    return json_response(reply.body, headers=headers)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
