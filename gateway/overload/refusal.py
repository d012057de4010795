"""The reply to a pledge beyond what can be stored in time: 503, answered before the application is called.

Under five times the load that a process can take, four of five requests get this reply; what it costs is
taken from the pledges that are accepted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle
from typing import Final

from backbone.http.problems import MEDIA_TYPE, Overloaded
from backbone.telemetry import join_trace
from gateway.access.limits import ConcurrencyLimit
from gateway.http import cors
from gateway.http.application import count_response
from gateway.http.asgi import BODY_LIMIT, Header, request_id_of

RETRY_AFTER_S: Final = (1, 2, 3, 4)
"""Seconds after which clients are told to come back, in turn, so that they do not come back together."""
PATTERN: Final = "/v1/drives/{drive}/pledges"
"""The route that is refused."""

_PREFIX, _SUFFIX = (part.encode() for part in PATTERN.split("{drive}"))
_DETAIL: Final = "More pledges arrive than can be stored in time. Repeat this one with the same key."
_MARK: Final = "request-id"


class Refusal:
    """Refuses pledges while no more are admitted to `pledges`."""

    def __init__(self, pledges: ConcurrencyLimit) -> None:
        self._pledges = pledges
        head, _, tail = json.dumps(Overloaded(_DETAIL).document(_MARK)).partition(_MARK)
        self._head, self._tail = head.encode(), tail.encode()
        common: list[Header] = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"cache-control", b"no-store"),
            *cors.readable("keyed"),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in common)
        status = b"HTTP/1.1 503 Service Unavailable\r\n"
        self._heads = cycle([b"%s%sretry-after: %d\r\n" % (status, lines, after) for after in RETRY_AFTER_S])

    def answer(self, target: bytes, headers: Sequence[Header]) -> tuple[bytes, bytes] | None:
        """See `backbone.http.early_answers.EarlyAnswer`; of a POST request.

        None where it is no pledge, where pledges are admitted, and where the body is large or of unknown
        length: the application answers such a request once its body is read.
        """
        if not self._pledges.is_full() or not target.startswith(_PREFIX):
            return None
        if not target.partition(b"?")[0].endswith(_SUFFIX):
            return None
        request_id, trace = "", None
        for name, value in headers:
            if name == b"x-request-id":
                request_id = value.decode("latin-1")
            elif name == b"traceparent":
                trace = value.decode("latin-1")
            elif name == b"transfer-encoding" or (name == b"content-length" and not _is_small(value)):
                return None
        self._pledges.count_refused()
        count_response(PATTERN, Overloaded.status)
        request_id = request_id_of(request_id)
        # A request id may contain a quotation mark or a backslash.
        body = b"".join((self._head, json.dumps(request_id)[1:-1].encode(), self._tail))
        length, trace = f"content-length: {len(body)}\r\n", f"traceparent: {join_trace(trace)}\r\n"
        return next(self._heads) + f"{length}x-request-id: {request_id}\r\n{trace}".encode(), body


def _is_small(length: bytes) -> bool:
    return length.isdigit() and int(length) <= BODY_LIMIT
