"""The reply to a pledge beyond what can be stored in time: 503, prepared, and sent before routing.

Under five times the load that a process can take, four of five requests get this reply; what it costs is
taken from the pledges that are accepted.
"""

from __future__ import annotations

import json
from itertools import cycle
from typing import Final

from starlette.types import Scope, Send

from backbone.http.problems import MEDIA_TYPE, Overloaded
from backbone.telemetry import join_trace
from gateway.access.limits import ConcurrencyLimit
from gateway.http import cors
from gateway.http.asgi import BODY_LIMIT, Header, request_id_of

RETRY_AFTER_S: Final = (1, 2, 3, 4)
"""Seconds after which clients are told to come back, in turn, so that they do not come back together."""
PATTERN: Final = "/v1/drives/{drive}/pledges"
"""The route that is refused."""

_PREFIX, _, _SUFFIX = PATTERN.partition("{drive}")
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
        self._headers = cycle([(*common, (b"retry-after", str(after).encode())) for after in RETRY_AFTER_S])

    def applies(self, scope: Scope) -> bool:
        """Whether this request is a pledge, and refused at present."""
        path: str = scope["path"]
        return (
            self._pledges.is_full()
            and scope["method"] == "POST"
            and path.endswith(_SUFFIX)
            and path.startswith(_PREFIX)
        )

    async def send(self, scope: Scope, send: Send) -> bool:
        """Send the reply; False where the body is large or of unknown length, and must be read first."""
        request_id, trace = "", None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                request_id = value.decode("latin-1")
            elif name == b"traceparent":
                trace = value.decode("latin-1")
            elif name == b"transfer-encoding" or (name == b"content-length" and not _is_small(value)):
                return False
        self._pledges.count_refused()
        request_id = request_id_of(request_id)
        # A request id may contain a quotation mark or a backslash.
        body = b"".join((self._head, json.dumps(request_id)[1:-1].encode(), self._tail))
        headers = [
            *next(self._headers),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            (b"traceparent", join_trace(trace).encode()),
        ]
        await send({"type": "http.response.start", "status": Overloaded.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})
        return True


def _is_small(length: bytes) -> bool:
    return length.isdigit() and int(length) <= BODY_LIMIT
