"""Calls of the services on behalf of a session: the same routes, scopes and ownership as with its API key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from backbone.http.caller import sign_caller
from backbone.http.problems import Overloaded, Problem
from backbone.http.service_client import ServiceClient, ServiceUnavailable
from backbone.idempotency import RequestInProgress
from backbone.telemetry import TRACEPARENT
from gateway.access.keys import Bearer
from gateway.access.limits import ConcurrencyLimit


class Refused(Exception):
    """A service refused a request; `problem` is its problem document."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("title", status)))
        self.status = status
        self.problem = problem

    @property
    def slug(self) -> str:
        """The name of the problem's type, such as `not-your-drive`."""
        return str(self.problem.get("type", "")).rpartition("/")[2]

    @property
    def errors(self) -> dict[str, str]:
        """What is wrong with each field of the request's body, by the name of the field."""
        found: dict[str, str] = {}
        for error in self.problem.get("errors") or ():
            name = str(error["pointer"]).split("/")[1] if "/" in str(error["pointer"]) else ""
            found.setdefault(name, str(error["detail"]))
        return found


class NotSaved(Refused):
    """No service confirmed a change: one does not answer, or a queue is full."""

    def __init__(self) -> None:
        super().__init__(503, {"type": "/problems/not-saved"})


FAILURES: Final = (Refused, ServiceUnavailable, Overloaded)
"""What a change may raise; `refusal_of` tells a person why it was not made."""


def refusal_of(failure: Exception) -> Refused:
    """The refusal itself, or `NotSaved` for what left the outcome open: a first attempt may still run."""
    is_final = isinstance(failure, Refused) and failure.slug != RequestInProgress.slug
    return failure if isinstance(failure, Refused) and is_final else NotSaved()


class ServiceCalls:
    """Requests to the services with the signed identity of a session's key."""

    def __init__(
        self,
        clients: Mapping[str, ServiceClient],
        secret: str,
        reads: ConcurrencyLimit,
        changes: ConcurrencyLimit,
    ) -> None:
        self._clients = clients
        self._internal = sign_caller(secret, partner="ataa", scopes=("internal",))
        self._reads = reads
        self._changes = changes

    async def get(self, bearer: Bearer, service: str, path: str, **query: str | None) -> Any:
        """The JSON of a GET. Raises `Refused`, `ServiceUnavailable` and, past the limit, `Overloaded`."""
        asked = urlencode({name: value for name, value in query.items() if value})
        with self._reads:
            return await self._send(bearer, service, "GET", path, None, asked, None)

    async def get_csv(self, bearer: Bearer, service: str, path: str, **query: str | None) -> bytes:
        """The table that a GET answers with. Raises as `get`."""
        asked = urlencode({name: value for name, value in query.items() if value})
        headers = {**bearer.signed, "accept": "text/csv", "traceparent": TRACEPARENT.get() or ""}
        with self._reads:
            reply = await self._clients[service].request("GET", path, headers=headers, query=asked)
        if reply.status >= 500:
            raise ServiceUnavailable(f"GET {path} answered {reply.status}")
        if reply.status != 200:
            raise Refused(reply.status, reply.json())
        return reply.body

    async def get_internal(self, service: str, path: str) -> Any:
        """The JSON of a GET of an internal route. Raises `ServiceUnavailable`, `Overloaded`."""
        with self._reads:
            reply = await self._clients[service].request("GET", path, headers=self._internal)
        if reply.status != 200:
            raise ServiceUnavailable(f"{path} answered {reply.status}")
        return reply.json()

    async def send(
        self,
        bearer: Bearer,
        service: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Any:
        """The JSON reply to a change, or None; `key` is its Idempotency-Key. Raises as `get`."""
        with self._changes:
            return await self._send(bearer, service, method, path, body, "", key)

    async def _send(
        self,
        bearer: Bearer,
        service: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: str,
        key: str | None,
    ) -> Any:
        headers = {**bearer.signed, "traceparent": TRACEPARENT.get() or ""}
        if body is not None:
            headers["content-type"] = "application/json"
        if key is not None:
            headers["idempotency-key"] = key
        sent = b"" if body is None else json.dumps(body).encode()
        reply = await self._clients[service].request(method, path, headers=headers, body=sent, query=query)
        if reply.status < 300:
            return reply.json() if reply.body else None
        if reply.status >= 500:
            raise ServiceUnavailable(f"{method} {path} answered {reply.status}")
        raise Refused(reply.status, reply.json())


def refused_by(problem: Problem) -> Refused:
    """The same for a problem of the gateway itself."""
    return Refused(problem.status, problem.document())
