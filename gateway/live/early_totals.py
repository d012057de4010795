"""Totals of drives whose snapshot is held, answered before the application is called.

The same responses as `LiveReads.one`, for ordinary requests; None for all others, which it then answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from backbone.telemetry import join_trace
from gateway.http import cors
from gateway.http.application import count_response
from gateway.http.asgi import Header, request_id_of
from gateway.http.conditional import matches
from gateway.http.negotiation import accepts_gzip
from gateway.live.hub import Hub
from gateway.live.totals import CACHE, GZIPPED, JSON, PATTERN, VARY
from gateway.live.view import DriveView, State

_PREFIX, _SUFFIX = (part.encode() for part in PATTERN.split("{drive}"))
_UNCOMMON: Final = frozenset({b"content-length", b"transfer-encoding"})
"""A request with one of these may have a body, which the application refuses or discards."""

Kind = Literal["full", "gzip"]


class _Responses(NamedTuple):
    """The parts of a drive's responses that do not depend on the request, for one `body`."""

    body: bytes
    etag: str
    ok: bytes
    not_modified: bytes


class EarlyTotals:
    """Answers `GET /v1/drives/{drive}/totals` from what the hub holds."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._responses: dict[tuple[str, Kind], _Responses] = {}

    def answer(self, target: bytes, headers: Sequence[Header]) -> tuple[bytes, bytes] | None:
        """See `backbone.http.early_answers.EarlyAnswer`; of a GET request."""
        view = self._view(target)
        if view is None:
            return None
        fields = dict(headers)
        if len(fields) != len(headers) or not _UNCOMMON.isdisjoint(fields):
            return None
        kind: Kind = "gzip" if accepts_gzip(_text(fields.get(b"accept-encoding"))) else "full"
        freshness = self._hub.freshness
        state = freshness.state(view)
        found = self._responses_of(view, kind, state, view.bytes(kind, state, freshness))
        trace = join_trace(_text(fields.get(b"traceparent")))
        own = f"x-request-id: {request_id_of(_text(fields.get(b'x-request-id')))}\r\ntraceparent: {trace}\r\n"
        known = _text(fields.get(b"if-none-match"))
        if known is not None and (known == found.etag or matches(known, found.etag)):
            count_response(PATTERN, 304)
            return found.not_modified + own.encode(), b""
        count_response(PATTERN, 200)
        return found.ok + own.encode(), found.body

    def _view(self, target: bytes) -> DriveView | None:
        """The drive of a target with this path and a query that needs no check, if its snapshot is held."""
        if not target.startswith(_PREFIX) or not target.isascii() or b"%" in target or b"#" in target:
            return None
        path, _, query = target.partition(b"?")
        if not path.endswith(_SUFFIX) or b"\x00" in query or not self._hub.bootstrapped:
            return None
        view = self._hub.known(path[len(_PREFIX) : -len(_SUFFIX)].decode("ascii"))
        return None if view is None or view.is_placeholder else view

    def _responses_of(self, view: DriveView, kind: Kind, state: State, body: bytes) -> _Responses:
        """Made once for each body: a drive's bytes change with its ETag, and once a second without."""
        found = self._responses.get((view.drive_id, kind))
        if found is None or found.body is not body:
            etag = view.etag(state, self._hub.freshness.step)
            both: list[Header] = [(b"etag", etag.encode()), CACHE, VARY, *cors.readable("live")]
            own = [JSON, (b"content-length", b"%d" % len(body)), *([GZIPPED] if kind == "gzip" else [])]
            found = _Responses(body, etag, _head(b"200 OK", own + both), _head(b"304 Not Modified", both))
            self._responses[view.drive_id, kind] = found
        return found


def _head(status: bytes, headers: Sequence[Header]) -> bytes:
    return b"".join((b"HTTP/1.1 %s\r\n" % status, *(b"%s: %s\r\n" % header for header in headers)))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
