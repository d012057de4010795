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
from backbone.idempotency import optional_key, required_key
from backbone.peer import Peer, PeerUnavailable, Reply
from backbone.problems import BodyTooLarge, Forbidden, NotFound, Unauthorized, UnsupportedMediaType
from backbone.telemetry import TRACEPARENT
from gateway.asgi import BODY_LIMIT, Answer, Header, Request, json_answer, matches
from gateway.keys import Bearer, KeyRing
from gateway.limits import Lane, Limit, is_loopback
from gateway.pages import check_form_token
from gateway.router import Cors, Handler, Route
from gateway.waits import Facts, Waits, compose, status_of, wait_of

_PASSED_ON: Final[tuple[str, ...]] = (
    "content-type",
    "idempotency-key",
    "if-none-match",
    "accept-language",
    "stripe-signature",
    "user-agent",
)
_PASSED_BACK: Final = frozenset(
    {"content-type", "retry-after", "etag", "cache-control", "idempotency-replayed", "location", "allow"}
)
_NOTHING: Final[Mapping[str, str]] = {}
WEBHOOK_LIMIT: Final = 1024 * 1024
BOARD_CACHE_S: Final = 1.0
MOST_CACHED: Final = 1000

KeyRule = Literal["none", "optional", "required"]


class FormExpired(Forbidden):
    slug, title = "form-expired", "This page was open for too long"


@dataclass(frozen=True, slots=True)
class Passage:
    """A route that is passed on as it is."""

    method: str
    pattern: str
    service: str
    scope: str
    lane: str
    publishable: bool = False
    idempotency: KeyRule = "none"


PASSAGES: Final = (
    Passage("POST", "/v1/drives", "pledges", "drives", "changes", idempotency="optional"),
    Passage("GET", "/v1/drives/{drive}", "pledges", "drives", "reads", publishable=True),
    Passage("PATCH", "/v1/drives/{drive}", "pledges", "drives", "changes"),
    Passage("POST", "/v1/drives/{drive}/open", "pledges", "drives", "changes", idempotency="optional"),
    Passage("POST", "/v1/drives/{drive}/pause", "pledges", "drives", "changes", idempotency="optional"),
    Passage("POST", "/v1/drives/{drive}/resume", "pledges", "drives", "changes", idempotency="optional"),
    Passage("POST", "/v1/drives/{drive}/close", "pledges", "drives", "changes", idempotency="optional"),
    Passage("POST", "/v1/drives/{drive}/creators", "pledges", "drives", "changes", idempotency="optional"),
    Passage("GET", "/v1/drives/{drive}/creators", "pledges", "drives", "reads", publishable=True),
    Passage("POST", "/v1/pledges/{id}/cancel", "pledges", "pledges", "changes", idempotency="optional"),
    Passage("POST", "/v1/pledges/{id}/refunds", "payments", "refunds", "changes", idempotency="required"),
    Passage("GET", "/v1/webhooks", "payments", "admin", "reads"),
    Passage("POST", "/v1/webhooks/{id}/retry", "payments", "admin", "changes"),
    Passage("POST", "/v1/keys", "keys", "admin", "changes", idempotency="optional"),
    Passage("GET", "/v1/keys", "keys", "admin", "reads"),
    Passage("DELETE", "/v1/keys/{id}", "keys", "admin", "changes"),
)
"""Routes with a key and nothing else to them; the others have handlers of their own."""


class Limits:
    """Who is counted against which limit."""

    def __init__(self, key: Limit, address: Limit) -> None:
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
        peers: Mapping[str, Peer],
        ring: KeyRing,
        limits: Limits,
        lanes: Mapping[str, Lane],
        waits: Waits,
        clock: Clock,
        secret: str,
        public_url: str,
        as_of: Callable[[str], datetime | None],
    ) -> None:
        self._peers = peers
        self._ring = ring
        self._limits = limits
        self._lanes = lanes
        self._waits = waits
        self._clock = clock
        self._secret = secret.encode()
        self._public_url = public_url
        self._as_of = as_of
        self._boards: OrderedDict[str, tuple[float, Reply]] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Reply]] = {}

    def routes(self) -> list[Route]:
        """Everything that is passed on."""
        live: Cors = "live"
        return [
            *(Route(one.method, one.pattern, self._handler(one)) for one in PASSAGES),
            Route("POST", "/v1/drives/{drive}/pledges", self.make_pledge, "keyed"),
            Route("GET", "/v1/pledges", self.list_pledges),
            Route("GET", "/v1/pledges/{id}", self.read_pledge, "keyed"),
            Route("POST", "/webhooks/stripe", self.take_webhook),
            Route("GET", "/v1/drives/{drive}/leaderboards/{board}", self.read_board, live),
            Route("GET", "/v1/drives/{drive}/events", self.read_board, live),
        ]

    def _handler(self, passage: Passage) -> Handler:
        async def handle(request: Request) -> Answer:
            bearer = self._admit(request)
            if not (passage.publishable and bearer.kind == "publishable"):
                _refuse_publishable(bearer)
                bearer.require(passage.scope)
            body = b""
            if request.method in ("POST", "PATCH"):
                body = await json_body(request)
                if passage.idempotency != "none":
                    await _check_idempotency_key(request, required=passage.idempotency == "required")
            with self._lanes[passage.lane]:
                reply = await self._pass_on(request, passage.service, bearer, body)
            return _answer(reply)

        return handle

    def _admit(self, request: Request) -> Bearer:
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

    async def _pass_on(
        self, request: Request, service: str, bearer: Bearer, body: bytes, told: Mapping[str, str] = _NOTHING
    ) -> Reply:
        given = request.headers
        headers: dict[str, str] = {name: given[name] for name in _PASSED_ON if name in given}
        headers.update(bearer.signed)
        headers.update(told)
        headers["x-request-id"] = request.request_id
        headers["traceparent"] = TRACEPARENT.get() or ""
        method = "GET" if request.method == "HEAD" else request.method
        return await self._peers[service].request(
            method, request.path, headers=headers, body=body, query=request.query
        )

    # Pledges.

    async def make_pledge(self, request: Request) -> Answer:
        """POST /v1/drives/{drive}/pledges: the donate path."""
        bearer = self._form_bearer(request) or self._admit(request)
        bearer.require("pledges")
        body = await json_body(request)
        await _check_idempotency_key(request, required=True)
        with self._lanes["pledges"]:
            reply = await self._pass_on(request, "pledges", bearer, body)
        wait_s = wait_of(request.headers.get("prefer"))
        if reply.status != 201 or not (wait_s or "idempotency-replayed" in reply.headers):
            return _answer(reply)  # a fresh pledge has no checkout yet, and says so
        return await self._held(request, reply, wait_s)

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

    async def _held(self, request: Request, reply: Reply, wait_s: float) -> Answer:
        """The pledge once its checkout is there, or once the wait is over."""
        pledge: Facts = reply.json()
        found, applied = None, wait_s > 0 and not self._waits.full
        if applied:
            seen = await self._waits.until(
                pledge["id"], lambda _, entry: _has_checkout(entry), wait_s, request.left, with_pledge=False
            )
            found = seen and seen[1]
        else:
            with suppress(PeerUnavailable):  # the pledge is made: that is the answer, whoever else is away
                found = await self._waits.checkouts.about(pledge["id"])
        return _answer(reply, _dump(compose(pledge, found)), _applied(wait_s) if applied else ())

    async def read_pledge(self, request: Request) -> Answer:
        """GET /v1/pledges/{id}: by its token, or by its partner's key."""
        pledge_id = request.params[0]
        token = _query_value(request, "token")
        bearer = None
        if token is None or "authorization" in request.headers:
            bearer = self._admit(request)
        else:
            self._limits.spend(self._ring.public, request.address)
        if not ids.is_id(pledge_id, "plg"):
            raise NotFound("No such pledge.")
        with self._lanes["reads"]:
            seen = await self._read(pledge_id)
        _check_reader(seen[0], bearer, token)
        wait_s, applied = wait_of(request.headers.get("prefer")), list[Header]()
        if wait_s and not self._waits.full:
            was = _watched(*seen)
            seen = (
                await self._waits.until(
                    pledge_id, lambda *now: _watched(*now) != was, wait_s, request.left, with_pledge=True
                )
                or seen
            )
            applied = _applied(wait_s)
        entry, checkout = seen
        assert entry is not None
        shown = compose(entry["pledge"], checkout)
        if token is None and bearer is not None and bearer.kind == "publishable":
            shown["token"] = None  # everybody knows a publishable key
        headers = [(b"cache-control", b"private, no-store"), (b"vary", b"Authorization"), *applied]
        return json_answer(_dump(shown), headers=headers)

    async def list_pledges(self, request: Request) -> Answer:
        """GET /v1/pledges: the partner's own, each with what payments knows of it.

        Payments may know more than pledges has heard: one that no longer is in the status asked for
        is left out, so a page may be short.
        """
        bearer = self._admit(request)
        _refuse_publishable(bearer)
        bearer.require("pledges")
        with self._lanes["reads"]:
            reply = await self._pass_on(request, "pledges", bearer, b"")
            if reply.status != 200:
                return _answer(reply)
            page = reply.json()
            found = await self._waits.checkouts.about_all([one["id"] for one in page["data"]])
        wanted = _query_value(request, "status")
        shown = [compose(one, found[one["id"]]) for one in page["data"]]
        page["data"] = [one for one in shown if wanted in (None, one["status"])]
        return json_answer(_dump(page), headers=[(b"cache-control", b"private, no-store")])

    async def _read(self, pledge_id: str) -> tuple[Facts | None, Facts | None]:
        entry, checkout = await asyncio.gather(
            self._waits.pledges.about(pledge_id), self._waits.checkouts.about(pledge_id)
        )
        return entry, checkout

    # Without a key.

    async def take_webhook(self, request: Request) -> Answer:
        """POST /webhooks/stripe: the body as it is; payments verifies its signature."""
        body = await request.body(WEBHOOK_LIMIT)
        with self._lanes["webhooks"]:
            return _answer(await self._pass_on(request, "payments", self._ring.public, body))

    async def read_board(self, request: Request) -> Answer:
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
                while len(self._boards) > MOST_CACHED:
                    self._boards.popitem(last=False)
        else:
            reply = held[1]
        if reply.status != 200:
            return _answer(reply)
        return _cacheable(request, reply)

    async def _read_once(self, key: str, request: Request) -> Reply:
        task = self._reading.get(key)
        if task is None:
            with self._lanes["reads"]:
                pass
            task = self._reading[key] = asyncio.create_task(self._read_board(key, request))
        return await asyncio.shield(task)

    async def _read_board(self, key: str, request: Request) -> Reply:
        # A replica of leaderboard knows the freshness of the partitions it reads; this gateway, of all.
        as_of = self._as_of(request.params[0])
        told = {"ataa-as-of": rfc3339(as_of)} if as_of is not None else _NOTHING
        try:
            with self._lanes["reads"]:
                return await self._pass_on(request, "leaderboard", self._ring.public, b"", told)
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


def _check_reader(entry: Facts | None, bearer: Bearer | None, token: str | None) -> None:
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


def _watched(entry: Facts | None, checkout: Facts | None) -> tuple[Any, Any]:
    """What a held read waits to see change: `status` and `checkout`."""
    known = checkout or {}
    said = status_of(entry["pledge"], known) if entry else known.get("status")
    return said, known.get("checkout")


def _applied(wait_s: float) -> list[Header]:
    return [(b"preference-applied", f"wait={wait_s:g}".encode())]


def _query_value(request: Request, name: str) -> str | None:
    return dict(parse_qsl(request.query, keep_blank_values=True)).get(name) if request.query else None


def _answer(reply: Reply, body: bytes | None = None, more: list[Header] | tuple[()] = ()) -> Answer:
    headers = [
        (name.encode(), value.encode("latin-1"))
        for name, value in reply.headers.items()
        if name in _PASSED_BACK
    ]
    return Answer(reply.status, [*headers, *more], reply.body if body is None else body)


def _cacheable(request: Request, reply: Reply) -> Answer:
    # A board's own names the state it shows: the same while only `as_of` moves on.
    etag = reply.headers.get("etag") or f'W/"{blake2b(reply.body, digest_size=12).hexdigest()}"'
    headers: list[Header] = [
        (b"etag", etag.encode()),
        (b"cache-control", b"public, max-age=1, s-maxage=1"),
    ]
    if matches(request.headers.get("if-none-match"), etag):
        return Answer(304, headers)
    return json_answer(reply.body, headers=headers)


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
