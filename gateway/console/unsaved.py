"""The page of a form whose change no service confirmed: it keeps what was posted, and sends it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from gateway import pages
from gateway.console.render import render
from gateway.http.asgi import Header, Request, Response
from gateway.pages.headers import page_headers
from gateway.pages.languages import choose_voice

_LABELS: Final[Mapping[str, str]] = {
    "title_en": "title_en",
    "title_ar": "title_ar",
    "description_en": "description_en",
    "description_ar": "description_ar",
    "name": "creator_name",
    "slug": "slug",
    "channel_url": "channel",
    "team": "team",
    "creator_goal": "goal",
    "origins": "origins",
    "event": "event",
    "pledge": "pledge_id",
    "sponsor": "sponsor",
    "cap": "cap",
    "ratio": "pool_ratio",
    "beneficiary": "beneficiary",
    "source": "rate_from",
    "target": "rate_to",
    "rate": "rate_value",
    "as_of": "rate_moment",
    "amount": "amount",
    "quantity": "quantity",
    "unit": "unit",
    "label": "label",
    "received_at": "received_when",
    "paid_at": "paid_when",
    "reference": "paid_reference",
    "fund": "paid_from",
    "donor": "donor_name",
    "message": "donor_message",
    "evidence": "evidence",
    "proposal": "proposal_id",
    "payment": "payment_id",
    "pool": "proposal_id",
    "key": "proposal_id",
    "why": "why",
    "reason": "why",
    "note": "note",
}
"""The typed fields that the page shows, each with the key of its label."""
_ACTIONS: Final = (
    "open", "pause", "resume", "close", "approve", "reject", "reverse", "release", "refund", "refunds",
    "end_pool", "revoke",
)  # fmt: skip
"""What a form does, where a button alone was to be pressed: the page names it."""
_RETRY: Final[Header] = (b"retry-after", b"5")


def unsaved_page(
    request: Request, fields: Sequence[tuple[str, str]], reason: str = "refused_not_saved"
) -> Response:
    """The form of `fields` for the request's own address, its CSRF token and its key included; 503.

    It needs no session, so that it can be shown while the sessions cannot be read. `reason` is a text's key.
    """
    address = f"{request.path}?{request.query}" if request.query else request.path
    return Response(503, [*page_headers("console"), _RETRY], _body(request, address, fields, reason))


def resumed_page(
    request: Request, address: str, fields: Sequence[tuple[str, str]], cookie: Sequence[Header]
) -> Response:
    """The form of `fields` for `address`, which was sent after its session had ended, in the new session."""
    body = _body(request, address, fields, "refused_session_ended")
    return Response(200, [*page_headers("console"), *cookie], body)


def _body(request: Request, address: str, fields: Sequence[tuple[str, str]], reason: str) -> bytes:
    query = dict(parse_qsl(urlsplit(address).query[:2000]))
    voice = choose_voice(query, request.headers.get("accept-language", ""), None)
    posted = dict(fields)
    return render(
        "unsaved.html",
        "console",
        voice,
        address=address,
        fields=fields,
        reason=reason,
        typed=[(key, posted[name]) for name, key in _LABELS.items() if posted.get(name)],
        action=posted.get("action", ""),
        actions=_ACTIONS,
    )


def unavailable_page(request: Request) -> Response:
    """A page that cannot be shown now; 503."""
    body = pages.problem_page(
        dict(parse_qsl(request.query[:2000])),
        problem="unavailable",
        accept_language=request.headers.get("accept-language", ""),
    )
    return Response(503, [*page_headers("problem"), _RETRY], body)
