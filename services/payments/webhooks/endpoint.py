"""`POST /webhooks/stripe` in bare ASGI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from backbone.crash import crash_point
from backbone.http.problems import BodyTooLarge, MethodNotAllowed, Problem, Unexpected, response
from services.payments.webhooks.receive import WebhookStore, now_s, read_body, verify

WEBHOOKS_PATH: Final = "/webhooks/stripe"
MAX_WEBHOOK_BYTES: Final = 1024 * 1024


def with_webhooks(app: ASGIApp, store: WebhookStore, secrets: Sequence[str]) -> ASGIApp:
    """`app` preceded by the webhook endpoint.

    Bare ASGI, because two webhooks arrive with every donation: FastAPI's request handling costs more than
    storing them.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != WEBHOOKS_PATH:
            await app(scope, receive, send)
            return
        try:
            await _receive_webhook(scope, receive, store, secrets)
        except Problem as problem:
            await response(problem, Request(scope))(scope, receive, send)
        except Exception:
            await response(Unexpected(), Request(scope))(scope, receive, send)
            raise
        else:
            await send({"type": "http.response.start", "status": 200, "headers": _STORED})
            await send({"type": "http.response.body", "body": b'{"received":true}'})

    return answer


_STORED: Final = [(b"content-type", b"application/json"), (b"content-length", b"17")]


async def _receive_webhook(
    scope: Scope, receive: Receive, store: WebhookStore, secrets: Sequence[str]
) -> None:
    """Verify a webhook and store it; returns once it is durable."""
    if scope["method"] != "POST":
        raise MethodNotAllowed(headers={"Allow": "POST"})
    body = await _body(receive)
    verify(body, _header(scope, b"stripe-signature"), secrets, now_s())
    await store.keep(read_body(body))
    crash_point("payments.webhooks.after_commit")


def _header(scope: Scope, wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem("The client disconnected before the end of the body.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_WEBHOOK_BYTES:
            raise BodyTooLarge("A webhook has at most 1 MiB.")
        if not message.get("more_body"):
            return b"".join(parts)
