"""The ASGI application: routing, request ids, tracing, and a problem document for every error."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Counter
from starlette.types import Receive, Scope, Send

from backbone.http.early_answers import EarlyAnswer
from backbone.http.problems import MEDIA_TYPE, MethodNotAllowed, NotFound, Overloaded, Problem, Unexpected
from backbone.http.service_client import ServiceUnavailable
from backbone.telemetry import TRACEPARENT, join_trace
from gateway.http import cors
from gateway.http.asgi import (
    BODY_LIMIT,
    ClientDisconnected,
    Header,
    Request,
    Response,
    StreamingResponse,
    linger,
    request_id_of,
)
from gateway.http.router import Router

_RESPONSES = Counter("ataa_gateway_answers_total", "Responses, by route and status.", ["route", "status"])
_counted: dict[tuple[str, int], Counter] = {}

log = structlog.get_logger()


class Gateway:
    """The gateway's ASGI application. `early_answer` answers some requests before it is called.

    `refuse` sends a reply and returns True where nothing else may be done for a request.
    """

    def __init__(
        self,
        router: Router,
        early_answer: EarlyAnswer,
        refuse: Callable[[Scope, Send], Awaitable[bool]],
    ) -> None:
        self._router = router
        self._refuse = refuse
        self.early_answer = early_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if await self._refuse(scope, send):
            return
        request = Request(scope, receive)
        request.request_id = request_id_of(request.headers.get("x-request-id", ""))
        trace = join_trace(request.headers.get("traceparent"))
        token = TRACEPARENT.set(trace)
        headers = [(b"x-request-id", request.request_id.encode()), (b"traceparent", trace.encode())]
        try:
            await self._respond(request, send, headers)
        except ClientDisconnected:
            return
        finally:
            TRACEPARENT.reset(token)

    async def _respond(self, request: Request, send: Send, headers: list[Header]) -> None:
        pattern = "none"
        try:
            routes, request.params = self._router.find(request.path)
            route = routes.get("GET" if request.method == "HEAD" else request.method)
            if request.method == "OPTIONS" and route is None:
                answer: Response | StreamingResponse = cors.options(
                    routes, request.headers.get("access-control-request-method")
                )
            elif route is None:
                raise MethodNotAllowed(headers={"Allow": cors.allowed_methods(routes)})
            else:
                pattern = route.pattern
                headers += cors.readable(route.cors)
                request.refuse_repeated()
                if pattern.startswith("/v1/"):
                    request.refuse_invalid_query()
                answer = await route.handler(request)
        except ClientDisconnected:
            raise
        except Exception as error:
            answer = problem_response(_problem_of(error, request), request)
        if isinstance(answer, Response):
            count_response(pattern, answer.status)
            await _send(request, send, answer, headers)
        else:
            await answer.run(request, send, headers)


def _problem_of(error: Exception, request: Request) -> Problem:
    if isinstance(error, Problem):
        if type(error) is NotFound and not error.detail:
            return NotFound("No such address.")
        return error
    if isinstance(error, ServiceUnavailable):
        log.warning("request.service_unavailable", path=request.path, error=str(error))
        return Overloaded("A service does not respond at the moment.", retry_after_s=2)
    log.exception("request.failed", path=request.path, error=type(error).__name__)
    return Unexpected()


def problem_response(problem: Problem, request: Request) -> Response:
    """The response with `problem` as its body (RFC 9457)."""
    body = json.dumps(problem.document(request.request_id), ensure_ascii=False).encode("utf-8", "replace")
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in problem.headers.items()]
    return Response(problem.status, headers, body)


async def _send(request: Request, send: Send, answer: Response, headers: list[Header]) -> None:
    every = [*answer.headers, *headers]
    if answer.status in (204, 304):
        every = [header for header in every if header[0] != b"content-type"]  # there is no content
    else:
        every.append((b"content-length", str(len(answer.body)).encode()))
    unread = not request.body_read and _is_large(request)
    if unread:
        every.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": every})
    if unread:
        # Send the whole response first, then drain what the client still sends before closing.
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await linger(request)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    body = b"" if request.method == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _is_large(request: Request) -> bool:
    if request.method in ("GET", "HEAD") and "transfer-encoding" not in request.headers:
        return False
    declared = request.declared_length()
    return declared is None or declared > BODY_LIMIT


def count_response(pattern: str, status: int) -> None:
    """Count a response of a route."""
    counter = _counted.get((pattern, status))
    if counter is None:
        counter = _counted[pattern, status] = _RESPONSES.labels(pattern, str(status))
    counter.inc()
