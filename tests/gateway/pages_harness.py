"""An HTTP server that serves the pages, with a drive whose responses are set by the test."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import uvicorn

from gateway.pages import (
    Creators,
    OtherCurrency,
    assets_app,
    donate_page,
    embed_script,
    overlay_page,
    page_headers,
    pay_page,
    problem_page,
    setup_page,
    thanks_page,
)
from gateway.pages.assets import Receive, Scope, Send
from gateway.pages.frames import Frame
from tests.waiting import PATIENCE_S

DRIVE = "drv_01winter"
KEY = "pk_live_of_the_tests"
Answer = tuple[int, dict[str, str], object]


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


SEQUENCE = 97500


def donation_row(n: int, **changes: object) -> dict[str, Any]:
    """The `donation` frame of the n-th gift after `drive_totals()`: the row with the fields of `recent`."""
    donation: dict[str, Any] = {
        "id": f"don_{n}",
        "payment": f"pay_{n}",
        "sequence": SEQUENCE + n,
        "type": "donation.counted",
        "name": f"Donor {n}",
        "message": "",
        "amount": usd("25.00"),
        "creator": None,
        "at": "2026-01-07T12:00:00Z",
    }
    return {**donation, **changes}


def drive_totals(**changes: object) -> dict[str, Any]:
    totals: dict[str, Any] = {
        "drive": DRIVE,
        "slug": "winter",
        "title": {"en": "Let's make their winter warmer", "ar": "لنجعل شتاءهم أدفأ"},
        "currency": "USD",
        "raised": usd("4560123.45"),
        "goal": usd("10000000.00"),
        "percent": 45.6,
        "donations": 97012,
        "donors": 96400,
        "per_minute": {"donations": 41, "raised": usd("1830.00")},
        "leaders": [],
        "recent": [],
        "milestones": [],
        "epoch": 1,
        "sequence": SEQUENCE,
        "as_of": "2026-01-07T12:00:00Z",
        "state": "live",
        "lag_ms": 84,
    }
    return {**totals, **changes}


@dataclass
class Harness:
    """The server's responses, and the requests it received."""

    totals: dict[str, Any] = field(default_factory=drive_totals)
    drive: dict[str, Any] = field(default_factory=dict)
    creators: list[dict[str, Any]] = field(default_factory=list)
    listed: int = 100
    searched: list[str] = field(default_factory=list)
    search_status: int = 200
    stream_status: int = 200
    totals_status: int = 200
    pledge_answers: deque[Answer] = field(default_factory=deque)
    pledge_views: deque[Answer] = field(default_factory=deque)
    pledge_requests: list[dict[str, Any]] = field(default_factory=list)
    totals_requests: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The drive's log, as `/events` returns it."""
    streams_opened: int = 0
    streams_from: list[str] = field(default_factory=list)
    resumed_by_gap: bool = False  # as the edge with nchan does: `gap`, and the end of the stream
    stream_queues: list[asyncio.Queue[bytes | None]] = field(default_factory=list)
    fee: Mapping[str, int] | None = None
    others: tuple[OtherCurrency, ...] = ()
    badge: bytes = b""
    proof: Any = None
    embedded_checkout: bool = False
    base: str = ""
    frame_origins: tuple[str, ...] = ()
    """The origins of the only publishable key, `KEY`."""

    def push(self, event: str, data: Any) -> None:
        identifier = data["sequence"] if event in ("donation", "milestone") else None
        for queue in self.stream_queues:
            queue.put_nowait(frame(event, data, identifier))

    def end_streams(self) -> None:
        for queue in self.stream_queues:
            queue.put_nowait(None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        query = dict(parse_qsl(scope["query_string"].decode()))
        if path.startswith("/assets/"):
            await assets_app(scope, receive, send)
        elif path.endswith("/live"):
            await self._stream(query, send)
        elif path.endswith("/events"):
            after, limit = int(query["after"]), int(query["limit"])
            rows = [row for row in self.rows if row["sequence"] > after][:limit]
            await _json(send, 200, {}, {"data": rows, "next": None})
        elif path.endswith("/proof"):
            await _json(send, 200 if self.proof else 404, {}, self.proof or {})
        elif path.startswith("/v1/"):
            await self._api(path, scope, receive, send)
        else:
            await self._page(path, query, send)

    async def _page(self, path: str, query: dict[str, str], send: Send) -> None:
        drive = {"id": DRIVE, **self.totals, **self.drive}
        frame = self._frame(path, query)
        ancestors = frame.ancestors if frame else ()
        if path == "/overlay/winter/setup":
            await reply_with(send, 200, page_headers("setup"), setup_page("winter", drive, query))
        elif path.startswith("/overlay/"):
            ref = unquote(path.removeprefix("/overlay/"))
            html = overlay_page(
                ref,
                self.totals["title"],
                query,
                impact=self.drive.get("impact", ()),
                creator=query.get("creator"),
            )
            await reply_with(send, 200, page_headers("overlay"), html)
        elif path.endswith("/thanks"):
            html = thanks_page(drive, query, frame=frame)
            await reply_with(send, 200, page_headers("thanks", ancestors), html)
        elif path.endswith("/pay"):
            html = pay_page(drive, query, frame=frame)
            await reply_with(send, 200, page_headers("pay", ancestors), html)
        elif path == "/embed.js":
            await reply_with(send, 200, [(b"content-type", b"text/javascript")], embed_script()[0])
        elif path == "/donate/winter" or frame is not None:
            named = query.get("creator", "").lower()
            found = next((one for one in self.creators if named in (one.get("id"), one["slug"])), None)
            creators = Creators(self.creators[: self.listed], len(self.creators) > self.listed)
            token = f"f1.{len(self.pledge_requests)}.aa"
            html = donate_page(
                drive, creators, query, token, creator=found, frame=frame, fee=self.fee, others=self.others,
                embedded_checkout=self.embedded_checkout,
            )  # fmt: skip
            await reply_with(send, 200, page_headers("donate", ancestors), html)
        elif path == "/donate/winter/creators":
            self.searched.append(query["q"])
            held = [one for one in self.creators if query["q"].lower() in one["name"].lower()]
            await _json(send, self.search_status, {}, {"creators": held[:20], "more": len(held) > 20})
        elif path.startswith("/badge/"):
            await reply_with(send, 200, [(b"content-type", b"image/svg+xml")], self.badge)
        elif path == "/checkout":
            await reply_with(send, 200, [(b"content-type", b"text/html")], b"<title>checkout</title>pay here")
        else:
            await reply_with(send, 404, page_headers("problem"), problem_page(query))

    def _frame(self, path: str, query: dict[str, str]) -> Frame | None:
        allowed = query.get("key") == KEY and query.get("origin") in self.frame_origins
        return (
            Frame(query["origin"], KEY, "key_1", self.frame_origins)
            if allowed and "/embed/" in path
            else None
        )

    async def _api(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        asked = {name.decode(): value.decode() for name, value in scope["headers"]}
        if path.endswith("/totals"):
            await self._totals(asked, send)
        elif scope["method"] == "POST":
            body = (await receive())["body"]
            self.pledge_requests.append({"headers": asked, "body": json.loads(body)})
            await _json(send, *self._next(self.pledge_answers))
        else:
            await _json(send, *self._next(self.pledge_views))

    def _next(self, answers: deque[Answer]) -> Answer:
        """The next scripted response; the last one is repeated."""
        return answers.popleft() if len(answers) > 1 else answers[0]

    async def _totals(self, asked: dict[str, str], send: Send) -> None:
        etag = f'W/"1.{self.totals["sequence"]}.0.{self.totals["state"]}"'
        self.totals_requests.append(asked.get("if-none-match", ""))
        if self.totals_status != 200:
            await _json(send, self.totals_status, {}, {"type": "/problems/x"})
        elif asked.get("if-none-match") == etag:
            await reply_with(send, 304, [(b"etag", etag.encode())], b"")
        else:
            await _json(send, 200, {"etag": etag}, self.totals)

    async def _stream(self, query: dict[str, str], send: Send) -> None:
        self.streams_opened += 1
        self.streams_from.append(query.get("last_event_id", ""))
        if self.stream_status != 200:
            await _json(send, self.stream_status, {}, {"type": "/problems/x"})
            return
        mine: asyncio.Queue[bytes | None] = asyncio.Queue()
        if self.resumed_by_gap and query.get("last_event_id"):
            mine.put_nowait(frame("gap", {"after": int(query["last_event_id"]), "events": "…"}))
            mine.put_nowait(None)
        else:
            mine.put_nowait(frame("totals", self.totals))
        self.stream_queues.append(mine)
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while (piece := await mine.get()) is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        self.stream_queues.remove(mine)
        await send({"type": "http.response.body", "body": b""})


def frame(event: str, data: object, identifier: int | None = None) -> bytes:
    head = "" if identifier is None else f"id: {identifier}\n"
    return f"event: {event}\n{head}data: {json.dumps(data)}\n\n".encode()


async def _json(send: Send, status: int, headers: dict[str, str], body: object) -> None:
    kind = "application/json" if status < 400 else "application/problem+json"
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await reply_with(send, status, [(b"content-type", kind.encode()), *pairs], json.dumps(body).encode())


async def reply_with(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving_pages(harness: Harness, port: int = 0) -> AsyncIterator[Harness]:
    """Serves `harness` on a free port of the loopback until left; its streams are ended first."""
    config = uvicorn.Config(harness, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(PATIENCE_S):
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.01)
    harness.base = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield harness
    finally:
        harness.end_streams()
        server.should_exit = server.force_exit = True
        await serving
