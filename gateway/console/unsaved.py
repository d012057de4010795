"""The page of a form whose change no service confirmed: it keeps what was posted, and sends it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl

from gateway import pages
from gateway.console.render import render
from gateway.http.asgi import Header, Request, Response
from gateway.pages.headers import page_headers
from gateway.pages.languages import choose_voice

_LABELS: Final[Mapping[str, str]] = {
    "name": "creator_name",
    "slug": "slug",
    "channel_url": "channel",
    "team": "team",
    "creator_goal": "goal",
    "origins": "origins",
    "event": "event",
    "pledge": "pledge_id",
    "amount": "amount",
    "why": "why",
}
"""The typed fields that the page shows, each with the key of its label."""
_RETRY: Final[Header] = (b"retry-after", b"5")


def unsaved_page(
    request: Request, fields: Sequence[tuple[str, str]], reason: str = "refused_not_saved"
) -> Response:
    """The form of `fields` for the request's own address, its CSRF token and its key included; 503.

    It needs no session, so that it can be shown while the sessions cannot be read. `reason` is a text's key.
    """
    query = dict(parse_qsl(request.query[:2000]))
    voice = choose_voice(query, request.headers.get("accept-language", ""), None)
    posted = dict(fields)
    body = render(
        "unsaved.html",
        "console",
        voice,
        address=f"{request.path}?{request.query}" if request.query else request.path,
        fields=fields,
        reason=reason,
        typed=[(key, posted[name]) for name, key in _LABELS.items() if posted.get(name)],
        action=posted.get("action", ""),
        actions=("open", "pause", "resume", "close"),
    )
    return Response(503, [*page_headers("console"), _RETRY], body)


def unavailable_page(request: Request) -> Response:
    """A page that cannot be shown now; 503."""
    body = pages.problem_page(
        dict(parse_qsl(request.query[:2000])),
        problem="unavailable",
        accept_language=request.headers.get("accept-language", ""),
    )
    return Response(503, [*page_headers("problem"), _RETRY], body)
