"""HTML forms, as browsers post them."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from backbone.http.problems import Invalid, UnsupportedMediaType
from gateway.http.asgi import Request

MAX_FIELDS: Final = 500


async def read_form(request: Request) -> list[tuple[str, str]]:
    """The fields of a form in their order, also empty ones.

    Raises `UnsupportedMediaType` for another content type, `BodyTooLarge` above 64 KiB, and `Invalid` for
    more than 500 fields, for NUL, and for what is not UTF-8.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise UnsupportedMediaType("Send application/x-www-form-urlencoded.")
    body = await request.body()
    try:
        text = body.decode("ascii")
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Invalid("The form is not readable.") from None
    if any("\0" in name or "\0" in value for name, value in fields):
        raise Invalid("The form contains the character NUL.")
    return fields
