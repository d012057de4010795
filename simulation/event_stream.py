"""A stream of server-sent events as a client reads it: the response, its chunks, and the events in them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from httptools import HttpResponseParser

from simulation.connection import Connection


class Reader(Protocol):
    """Is told of each event of a stream, in order."""

    def take_retry(self, delay_s: float) -> None:
        """The delay before the next connection."""
        ...

    def take_position(self, identifier: int) -> None:
        """An `id`, before the event that it belongs to, if there is one."""
        ...

    def take_row(self, row: Mapping[str, Any]) -> None:
        """A donation or a milestone."""
        ...

    def take_totals(self, totals: Mapping[str, Any]) -> None:
        """The drive's totals."""
        ...

    def take_gap(self, gap: Mapping[str, Any]) -> None:
        """Rows were missed."""
        ...


class Stream:
    """One stream: `connect` makes its connection."""

    def __init__(self, reader: Reader, connect: Callable[[Stream], Connection]) -> None:
        self.status = 0
        self.drained = False
        """Whether `event: drain` was received."""
        self.is_whole = False
        """Whether the response has come to its end."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = reader
        self._parser = HttpResponseParser(self)
        self._body = b""
        self.connection = connect(self)

    def received(self, data: bytes) -> None:
        """See `Client`."""
        self._parser.feed_data(data)

    def lost(self) -> None:
        """See `Client`."""
        if not self.ended.done():
            self.ended.set_result(None)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self.status = self._parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        """Called by the parser."""
        if self.status != 200:
            return
        *events, self._body = (self._body + part).split(b"\n\n")
        for event in events:
            self._take(event.decode())

    def on_message_complete(self) -> None:
        """Called by the parser: a refused request, whose connection stays open, or the end of the stream."""
        self.is_whole = True
        self.connection.end(None)
        self.lost()

    def _take(self, event: str) -> None:
        reader = self._reader
        fields = dict(line.split(": ", 1) for line in event.split("\n") if not line.startswith(":"))
        if "retry" in fields:
            reader.take_retry(int(fields["retry"]) / 1000)
        if "id" in fields:
            reader.take_position(int(fields["id"]))
        match fields.get("event"):
            case "totals":
                reader.take_totals(json.loads(fields["data"]))
            case "donation" | "milestone":
                reader.take_row(json.loads(fields["data"]))
            case "gap":
                reader.take_gap(json.loads(fields["data"]))
            case "drain":
                self.drained = True
