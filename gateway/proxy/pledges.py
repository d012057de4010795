"""Pledges: made with an API key or a form token, and read with what payments knows of them."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl

from backbone import ids
from backbone.clock import Clock
from backbone.http.problems import Forbidden, NotFound, Unauthorized
from backbone.http.service_client import ServiceResponse, ServiceUnavailable
from gateway.access.keys import Bearer
from gateway.access.same_origin import is_own_origin
from gateway.http.asgi import Header, Request, Response, json_response
from gateway.http.router import Route
from gateway.pages import check_form_token
from gateway.proxy.forwarding import (
    Forwarder,
    check_idempotency_key,
    json_body,
    refuse_publishable,
    response_of,
)
from gateway.proxy.waits import Facts, Seen, Waits, pledge_view, preferred_wait_s, status_of
from gateway.screening.pledge_screening import PledgeScreening

_PRIVATE: Final[Header] = (b"cache-control", b"private, no-store")


class FormExpired(Forbidden):
    slug, title = "form-expired", "This page was open for too long"


class PledgeRoutes:
    """The routes under /v1/pledges that combine pledges and payments."""

    def __init__(
        self,
        forwarder: Forwarder,
        waits: Waits,
        clock: Clock,
        secret: str,
        public_url: str,
        screening: PledgeScreening,
    ) -> None:
        self._forwarder = forwarder
        self._key_ring = forwarder.key_ring
        self._limits = forwarder.limits
        self._reads = forwarder.concurrency_limits["reads"]
        self._pledges = forwarder.concurrency_limits["pledges"]
        self._waits = waits
        self._clock = clock
        self._secret = secret.encode()
        self._public_url = public_url
        self._screening = screening

    def routes(self) -> list[Route]:
        """Make, list and read pledges."""
        return [
            Route("POST", "/v1/drives/{drive}/pledges", self.make_pledge, "keyed"),
            Route("GET", "/v1/pledges", self.list_pledges),
            Route("GET", "/v1/pledges/{id}", self.read_pledge, "keyed"),
        ]

    async def make_pledge(self, request: Request) -> Response:
        """POST /v1/drives/{drive}/pledges."""
        bearer = self._form_bearer(request) or self._forwarder.authenticate(request)
        bearer.require("pledges")
        client = self._screening.admit(bearer, request.address)
        body = await json_body(request)
        await check_idempotency_key(request, required=True)
        with self._pledges:
            reply = await self._forwarder.forward(request, "pledges", bearer, body, client)
        wait_s = preferred_wait_s(request.headers.get("prefer"))
        if reply.status != 201 or not (wait_s or "idempotency-replayed" in reply.headers):
            return response_of(reply)  # a new pledge has no checkout yet, and its body shows that
        return await self._with_checkout(request, reply, wait_s)

    def _form_bearer(self, request: Request) -> Bearer | None:
        """The bearer of a form token; None where the request carries none or has an API key.

        A form in a partner's frame sends the partner's publishable key and a token made for it: then the
        key is valid from the form's own origin. Raises `FormExpired` for a token of another drive, of
        another origin, or past its two hours.
        """
        token = request.headers.get("ataa-form-token")
        if token is None:
            return None
        if "authorization" in request.headers:
            return self._framed_bearer(request, token)
        if not is_own_origin(request.headers.get("origin", ""), request, self._public_url):
            raise FormExpired("The form may only be sent from its own page.")
        if not check_form_token(self._secret, request.params[0], token, self._clock.now()):
            raise FormExpired("Load the page again.")
        self._limits.spend(self._key_ring.form, request.address)
        return self._key_ring.form

    def _framed_bearer(self, request: Request, token: str) -> Bearer | None:
        """The bearer of a publishable key with a valid token of its framed form, else None."""
        try:
            bearer = self._key_ring.find(request.headers["authorization"])
        except Unauthorized:
            return None
        now, drive = self._clock.now(), request.params[0]
        origin = request.headers.get("origin", "")
        if bearer.kind != "publishable" or not is_own_origin(origin, request, self._public_url):
            return None
        if not check_form_token(self._secret, drive, token, now, bearer.key_id):
            return None
        self._limits.spend(bearer, request.address)
        return bearer

    async def _with_checkout(self, request: Request, reply: ServiceResponse, wait_s: float) -> Response:
        """The new pledge as soon as it has a checkout, or when the wait is over."""
        pledge: Facts = reply.json()
        if wait_s > 0 and not self._waits.full:
            seen = await self._wait(request, pledge["id"], wait_s, _has_checkout, with_pledge=False)
            checkout, headers = seen and seen[1], _preference_applied(wait_s)
        else:
            checkout, headers = None, []
            with suppress(
                ServiceUnavailable
            ):  # the pledge is stored: an unavailable payments service must not fail the reply
                checkout = await self._waits.checkouts.look_up(pledge["id"])
        return response_of(reply, _json(pledge_view(pledge, checkout)), headers)

    async def read_pledge(self, request: Request) -> Response:
        """GET /v1/pledges/{id}: with the pledge's token, or with an API key of its partner."""
        pledge_id = request.params[0]
        token = _query_value(request, "token")
        bearer = None
        if token is None or "authorization" in request.headers:
            bearer = self._forwarder.authenticate(request)
        else:
            self._limits.spend(self._key_ring.public, request.address)
        if not ids.is_id(pledge_id, "plg"):
            raise NotFound("No such pledge.")
        with self._reads:
            seen = await self._look_up(pledge_id)
        _authorize_reader(seen[0], bearer, token)
        wait_s, headers = preferred_wait_s(request.headers.get("prefer")), list[Header]()
        if wait_s and not self._waits.full:
            before = _awaited_fields(*seen)

            def changed(entry: Facts | None, checkout: Facts | None) -> bool:
                return _awaited_fields(entry, checkout) != before

            seen = await self._wait(request, pledge_id, wait_s, changed, with_pledge=True) or seen
            headers = _preference_applied(wait_s)
        entry, checkout = seen
        assert entry is not None
        shown = pledge_view(entry["pledge"], checkout)
        if token is None and bearer is not None and bearer.kind == "publishable":
            shown["token"] = None  # a publishable key is public, the pledge's token is not
        return json_response(_json(shown), headers=[_PRIVATE, (b"vary", b"Authorization"), *headers])

    async def read_with_token(self, request: Request) -> Facts:
        """The pledge that a request's path and token name, without what payments knows of it.

        Raises `NotFound` for a wrong token as for an unknown pledge.
        """
        pledge_id = request.params[0]
        entry = await self._waits.pledges.look_up(pledge_id) if ids.is_id(pledge_id, "plg") else None
        _authorize_reader(entry, None, _query_value(request, "token") or "")
        assert entry is not None
        pledge: Facts = entry["pledge"]
        return pledge

    async def list_pledges(self, request: Request) -> Response:
        """GET /v1/pledges: the partner's pledges with what payments knows of each.

        Payments may be ahead of pledges: a pledge that no longer has the requested status is left out, so a
        page may hold fewer than `limit`.
        """
        bearer = self._forwarder.authenticate(request)
        refuse_publishable(bearer)
        bearer.require("pledges")
        with self._reads:
            reply = await self._forwarder.forward(request, "pledges", bearer)
            if reply.status != 200:
                return response_of(reply)
            page = reply.json()
            found = await self._waits.checkouts.look_up_all([one["id"] for one in page["data"]])
        wanted = _query_value(request, "status")
        shown = [pledge_view(one, found[one["id"]]) for one in page["data"]]
        page["data"] = [one for one in shown if wanted in (None, one["status"])]
        return json_response(_json(page), headers=[_PRIVATE])

    async def _look_up(self, pledge_id: str) -> Seen:
        entry, checkout = await asyncio.gather(
            self._waits.pledges.look_up(pledge_id), self._waits.checkouts.look_up(pledge_id)
        )
        return entry, checkout

    async def _wait(
        self,
        request: Request,
        pledge_id: str,
        wait_s: float,
        enough: Callable[[Facts | None, Facts | None], bool],
        *,
        with_pledge: bool,
    ) -> Seen | None:
        return await self._waits.until(
            pledge_id, enough, wait_s, request.disconnected, with_pledge=with_pledge
        )


def _authorize_reader(entry: Facts | None, bearer: Bearer | None, token: str | None) -> None:
    """Raises `NotFound` for a reader without access, as for a pledge that does not exist.

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


def _has_checkout(_: Facts | None, checkout: Facts | None) -> bool:
    return checkout is not None and (checkout["checkout"] is not None or checkout["status"] is not None)


def _awaited_fields(entry: Facts | None, checkout: Facts | None) -> tuple[Any, Any]:
    """The fields whose change ends a held read: `status` and `checkout`."""
    known = checkout or {}
    status = status_of(entry["pledge"], known) if entry else known.get("status")
    return status, known.get("checkout")


def _preference_applied(wait_s: float) -> list[Header]:
    return [(b"preference-applied", f"wait={wait_s:g}".encode())]


def _query_value(request: Request, name: str) -> str | None:
    return dict(parse_qsl(request.query, keep_blank_values=True)).get(name) if request.query else None


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
