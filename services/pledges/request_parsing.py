"""Request parsing: bounded JSON bodies, and routes that bypass FastAPI's parameter resolution."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from backbone.http.problems import BodyTooLarge, Invalid, MalformedJson, UnsupportedMediaType
from services.pledges.requests import parse_json

MAX_BODY_BYTES: Final = 64 * 1024
MAX_STRINGS: Final = 2_000

Handler = Callable[[Request], Awaitable[Response]]


async def json_body(request: Request) -> bytes:
    """The body of a JSON request. Raises UnsupportedMediaType, BodyTooLarge."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType("Send Content-Type: application/json.")
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"At most {MAX_BODY_BYTES} bytes.")
    return body


async def string_list(request: Request, field: str) -> list[str]:
    """The list of strings under `field` in the body of an internal call. Raises MalformedJson, Invalid."""
    body = parse_json(await request.body())
    strings = body.get(field) if isinstance(body, dict) else None
    if (
        not isinstance(strings, list)
        or len(strings) > MAX_STRINGS
        or not all(_is_string(one) for one in strings)
    ):
        raise Invalid(f'Send {{"{field}": […]}} with at most {MAX_STRINGS} of them.')
    return strings


def _is_string(value: object) -> bool:
    return isinstance(value, str) and "\x00" not in value


class JsonRoute(APIRoute):
    """A route that refuses a body that is not JSON, with a problem document, before validation."""

    takes_no_body = False

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def checked(request: Request) -> Response:
            if self.takes_no_body and not await request.body():
                return await handle(request)
            body = await json_body(request)
            if not body:
                raise MalformedJson("The body is empty.")
            parse_json(body)
            return await handle(request)

        return checked


class OptionalJsonRoute(JsonRoute):
    """A `JsonRoute` that may be called without a body."""

    takes_no_body = True


def direct_route(handler: Handler) -> type[APIRoute]:
    """A route documented by the signature of its endpoint, but answered by `handler` from the bare request.

    On the hot path, FastAPI's dependency resolution and body parsing cost more than the endpoint itself.
    """

    class DirectRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            async def answer(request: Request) -> Response:
                return await handler(request)

            return answer

    return DirectRoute
