"""A drive whose figures this process makes up: its overlay, and the totals, log and stream behind it."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from bench.page_server import reply, serving
from gateway.pages import assets_app, overlay_page, page_headers
from gateway.pages.assets import Receive, Scope, Send

NOW: Final = "2026-01-07T12:00:00Z"
LOGGED: Final = 1_000
STEP: Final = 500_000
"""A milestone is at each multiple of this."""


@dataclass(slots=True)
class Screen:
    """A drive whose frames this process makes, as an ASGI application.

    Every 200 gifts another creator leads, and the pool of the sponsor changes with each gift, so that all
    parts of the overlay change.
    """

    sequence: int = 1
    queues: list[asyncio.Queue[bytes | None]] = field(default_factory=list)
    rows: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=LOGGED))
    """The end of the drive's log."""

    def totals(self) -> dict[str, Any]:
        """Totals after `sequence` gifts of 25 dollars."""
        recent = [
            {"id": f"don_{self.sequence - n}", "name": f"Donor {self.sequence - n}", "message": "",
             "amount": _usd(25), "creator": "crt_1", "at": NOW}
            for n in range(10)
        ]  # fmt: skip
        raised = self.sequence * 25
        milestones = [
            {
                "title": f"Step {n}",
                "amount": _usd(n * STEP),
                "reached_at": NOW if raised >= n * STEP else None,
            }
            for n in range(1, 21)
        ]
        pool = {
            "id": "mch_1", "sponsor": "Acme", "cap": _usd(10_000), "used": _usd(self.sequence % 10_000),
            "ratio": "1.00",
        }  # fmt: skip
        return {
            "drive": "drv_01winter", "slug": "winter", "title": {"en": "Winter"}, "currency": "USD",
            "raised": _usd(raised), "goal": _usd(10_000_000), "donations": self.sequence,
            "per_minute": {"donations": 41, "raised": _usd(1_025)}, "leaders": self._leaders(),
            "recent": recent, "milestones": milestones, "matching": [pool],
            "epoch": 1, "sequence": self.sequence, "as_of": NOW, "state": "live", "lag_ms": 9,
        }  # fmt: skip

    def _leaders(self) -> list[dict[str, Any]]:
        shift = self.sequence // 200
        return [
            {"rank": n + 1, "creator": f"crt_{(n + shift) % 8}", "slug": f"c{(n + shift) % 8}",
             "name": f"Creator {(n + shift) % 8}", "raised": _usd(self.sequence * (9 - n)),
             "donations": self.sequence}
            for n in range(8)
        ]  # fmt: skip

    def gift(self) -> bytes:
        """The frame of the next gift."""
        self.sequence += 1
        row = {
            "id": f"don_{self.sequence}", "payment": f"pay_{self.sequence}", "sequence": self.sequence,
            "type": "donation.counted", "name": f"Donor {self.sequence}", "message": "May they be warm.",
            "amount": _usd(self.sequence % 600 + 1), "creator": f"crt_{self.sequence % 8}", "at": NOW,
        }  # fmt: skip
        self.rows.append(row)
        return frame("donation", row, self.sequence)

    async def send(self, frames: bytes) -> None:
        """Send frames to every stream, and wait for room where a client is slow."""
        for queue in self.queues:
            await queue.put(frames)

    async def break_streams(self) -> None:
        """End all streams once they have sent what waits."""
        ended, self.queues = self.queues, []
        for queue in ended:
            await queue.put(None)

    def end_streams(self) -> None:
        """End all streams, where a frame still waits without it."""
        for queue in self.queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)
        self.queues.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the overlay, its assets, its totals, its log and its stream."""
        if scope["type"] != "http":
            return
        path, query = scope["path"], dict(parse_qsl(scope["query_string"].decode()))
        if path.startswith("/assets/"):
            await assets_app(scope, receive, send)
        elif path.endswith("/live"):
            await self._stream(query.get("last_event_id", ""), send)
        elif path.endswith("/totals"):
            await reply(send, [(b"content-type", b"application/json")], json.dumps(self.totals()).encode())
        elif path.endswith("/events"):
            rows = [row for row in self.rows if row["sequence"] > int(query["after"])][: int(query["limit"])]
            body = json.dumps({"data": rows, "next": None}).encode()
            await reply(send, [(b"content-type", b"application/json")], body)
        else:
            await reply(send, page_headers("overlay"), overlay_page("winter", {"en": "Winter"}, query))

    async def _stream(self, last_event_id: str, send: Send) -> None:
        mine: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=8)
        first = [frame("totals", self.totals())]
        if last_event_id:
            after = int(last_event_id)
            first += [frame("donation", row, row["sequence"]) for row in self.rows if row["sequence"] > after]
        mine.put_nowait(b"".join(first))
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self.queues.append(mine)
        while (frames := await mine.get()) is not None:
            await send({"type": "http.response.body", "body": frames, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _usd(whole: int) -> dict[str, str]:
    return {"currency": "USD", "value": f"{whole}.00"}


def frame(event: str, data: object, identifier: int | None = None) -> bytes:
    """A frame of the live stream."""
    head = "" if identifier is None else f"id: {identifier}\n"
    return f"event: {event}\n{head}data: {json.dumps(data)}\n\n".encode()


@asynccontextmanager
async def serving_overlay(screen: Screen) -> AsyncIterator[str]:
    """Serve `screen` on a free port of the loopback; the address of its overlay."""
    async with serving(screen) as origin:
        try:
            yield f"{origin}/overlay/winter?lang=en"
        finally:
            screen.end_streams()
