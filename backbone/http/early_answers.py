"""Answers that need no task: a request is answered where uvicorn has parsed its headers.

uvicorn makes a scope, an event, a response cycle and a task for each request, and joins the headers again
for each response. An application whose most frequent answers are in memory offers them through
`early_answer`; `EarlyProtocol` writes them to the connection at once. Every other request, and every request
whose connection is in an uncommon state, takes uvicorn's ordinary path to the application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import structlog
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EarlyAnswer = Callable[[bytes, bytes, Sequence[tuple[bytes, bytes]]], tuple[bytes, bytes] | None]
"""Called with the method, the target and the headers of a request, names in lower case.

Returns the status line with the headers, each with its line break, and the body; or None where the
application has to answer. `Date` is added. It must not wait for anything. The body of the request, if it has
one, may arrive later and is discarded.
"""

log = structlog.get_logger()


class _Answered:
    """Stands for the response cycle of a request that was answered early."""

    response_complete = True
    disconnected = False
    keep_alive = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


_ANSWERED: Final = _Answered()


class EarlyProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, which first asks `early_answer`."""

    def __init__(self, *args: Any, early_answer: EarlyAnswer, **options: Any) -> None:
        super().__init__(*args, **options)
        self._early_answer = early_answer

    def on_headers_complete(self) -> None:
        """Answer the request, or start the application on it."""
        if not self._answer():
            # Armed by an early answer to a request that came in the same bytes.
            self._unset_keepalive_if_required()
            super().on_headers_complete()

    def _answer(self) -> bool:
        parser, cycle = self.parser, self.cycle
        if (
            parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
            or self.expect_100_continue
            # An earlier request of this connection is not answered yet, or its client does not read.
            or (cycle is not None and not cycle.response_complete)
            or self.flow.write_paused
            or self.transport.is_closing()
        ):
            return False
        try:
            answer = self._early_answer(parser.get_method(), self.url, self.headers)
        except Exception as error:
            log.exception("request.not_answered_early", error=type(error).__name__)
            return False
        if answer is None:
            return False
        head, body = answer
        defaults = [b"%s: %s\r\n" % header for header in self.server_state.default_headers]
        self.transport.write(b"".join((head, *defaults, b"\r\n", body)))
        self.cycle = _ANSWERED  # type: ignore[assignment]
        self.on_response_complete()
        return True


def protocol_of(app: ASGIApp) -> Any:
    """uvicorn's setting `http` for an application: the early protocol where it has an `early_answer`."""
    answer: EarlyAnswer | None = getattr(app, "early_answer", None)
    return "auto" if answer is None else partial(EarlyProtocol, early_answer=answer)
