"""The reply to a pledge beyond what can be stored in time: 503, answered before the application is called.

Under five times the load that a process can take, four of five requests get this reply; what it costs is
taken from the pledges that are accepted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle
from typing import Final

from starlette.types import Scope, Send

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
_STATUS_LINE: Final = b"HTTP/1.1 503 Service Unavailable\r\n"


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
        self._headers = cycle([(*common, (b"retry-after", b"%d" % after)) for after in RETRY_AFTER_S])

    def answer(self, target: bytes, headers: Sequence[Header]) -> tuple[bytes, bytes] | None:
        """See `backbone.http.early_answers.EarlyAnswer`; of a POST request."""
        if not self._pledges.is_full():
            return None
        refused = self._refused(target.partition(b"?")[0], headers)
        if refused is None:
            return None
        lines = b"".join([b"%s: %s\r\n" % header for header in refused[0]])
        return _STATUS_LINE + lines, refused[1]

    async def send(self, scope: Scope, send: Send) -> bool:
        """Refuse a request that began when others were not counted yet; whether that was done."""
        if scope["method"] != "POST" or not self._pledges.is_full():
            return False
        refused = self._refused(scope["raw_path"], scope["headers"])
        if refused is None:
            return False
        headers, body = refused
        await send({"type": "http.response.start", "status": Overloaded.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
        return True

    def _refused(self, path: bytes, headers: Sequence[Header]) -> tuple[list[Header], bytes] | None:
        """Headers and body of the reply; None where it is no pledge, or its body must be read first."""
        if not path.startswith(_PREFIX) or not path.endswith(_SUFFIX):
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
        return [
            *next(self._headers),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            (b"traceparent", join_trace(trace).encode()),
        ], body


def _is_small(length: bytes) -> bool:
    return length.isdigit() and int(length) <= BODY_LIMIT
