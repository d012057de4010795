"""How the door reads requests: bounded JSON bodies, and routes answered without a framework's detours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from backbone.problems import BodyTooLarge, Invalid, MalformedJson, UnsupportedMediaType
from services.pledges.wishes import well_formed

MAX_BODY_BYTES: Final = 64 * 1024
MAX_IDS: Final = 2_000

Handler = Callable[[Request], Awaitable[Response]]


async def body_of(request: Request) -> bytes:
    """The body of a JSON request. Raises UnsupportedMediaType, BodyTooLarge."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaType("Send Content-Type: application/json.")
    body = await request.body()
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"At most {MAX_BODY_BYTES} bytes.")
    return body


async def names_in(request: Request, field: str) -> list[str]:
    """The list of texts an internal caller asks about. Raises MalformedJson, Invalid."""
    asked = well_formed(await request.body())
    names = asked.get(field) if isinstance(asked, dict) else None
    if not isinstance(names, list) or len(names) > MAX_IDS or not all(_is_name(one) for one in names):
        raise Invalid(f'Send {{"{field}": […]}} with at most {MAX_IDS} of them.')
    return names


def _is_name(sent: object) -> bool:
    return isinstance(sent, str) and "\x00" not in sent


class JsonRoute(APIRoute):
    """A route that refuses what is not JSON as the public door names it, before its fields are read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def checked(request: Request) -> Response:
            body = await body_of(request)
            if not body:
                raise MalformedJson("The body is empty.")
            well_formed(body)
            return await handle(request)

        return checked


def answered_by(handler: Handler) -> type[APIRoute]:
    """A route documented by its endpoint's signature and answered by `handler`, from the bare request.

    Resolving dependencies and reading bodies in the framework costs a hot door more than its work.
    """

    class Answered(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            async def answer(request: Request) -> Response:
                return await handler(request)

            return answer

    return Answered
