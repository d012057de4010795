"""A fake of the public API, the sandbox and the services' books, over HTTP, with its state in memory.

Its faults: execute a request and cut the connection, answer 503 or 429, create the checkout late. Run as a
program, it replaces both the sandbox and Ataa.
"""

import asyncio
import itertools
import json
import sys
import time
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from aiohttp import web

SECRET = "sk_live_rehearsal"
ADMIN = "ak_admin_rehearsal"
INTERNAL = "a shared secret"


@dataclass
class Faults:
    """The faults: every n-th request of a kind fails; 0 means none."""

    cut_after_acting: int = 0
    unavailable: int = 0
    too_many: int = 0
    late_checkout: bool = False
    refuse_publishable: bool = False


@dataclass
class Pledge:
    id: str
    body: dict[str, Any]
    status: str = "open"
    captured: Decimal = Decimal("0.00")
    refunded: Decimal = Decimal("0.00")
    disputed: Decimal = Decimal("0.00")
    looked_at: int = 0
    captures: int = 0
    refunds_fail: bool = False

    @property
    def amount(self) -> Decimal:
        return Decimal(self.body["amount"]["value"])

    @property
    def net(self) -> Decimal:
        return self.captured - self.refunded - self.disputed


@dataclass
class FakeBackend:
    faults: Faults = field(default_factory=Faults)
    pledges: dict[str, Pledge] = field(default_factory=dict)
    by_key: dict[str, Pledge] = field(default_factory=dict)
    refunds: dict[str, Decimal] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    miscounted: Decimal = Decimal("0.00")
    base: str = ""
    requests: int = 0
    origins: list[str] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._misbehave])
        app.router.add_get("/livez", self._fine)
        app.router.add_get("/readyz", self._fine)
        app.router.add_post("/v1/keys", self._key)
        app.router.add_post("/v1/drives", self._made)
        app.router.add_post("/v1/drives/winter/creators", self._made)
        app.router.add_post("/v1/drives/winter/open", self._fine)
        app.router.add_post("/v1/drives/winter/pledges", self._pledge)
        app.router.add_get("/v1/pledges/{id}", self._look)
        app.router.add_post("/v1/pledges/{id}/refunds", self._refund)
        app.router.add_get("/v1/drives/winter/totals", self._totals)
        app.router.add_get("/v1/drives/winter/events", self._events)
        app.router.add_get("/v1/drives/winter/live", self._live)
        app.router.add_post("/c/{id}/pay", self._pay)
        app.router.add_get("/_sandbox/books", self._sandbox_books)
        app.router.add_get("/_sandbox/deliveries", self._delivered)
        app.router.add_get("/internal/books", self._books)
        return app

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.method != "POST":
            return await handler(request)
        self.requests += 1
        if _nth(self.faults.unavailable, self.requests):
            return web.json_response({"detail": "busy"}, status=503, headers={"Retry-After": "0"})
        if _nth(self.faults.too_many, self.requests):
            return web.json_response({"detail": "slowly"}, status=429, headers={"Retry-After": "0.01"})
        response = await handler(request)
        if _nth(self.faults.cut_after_acting, self.requests) and request.transport is not None:
            request.transport.abort()
        return response

    async def _fine(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _made(self, request: web.Request) -> web.Response:
        return web.json_response(await request.json(), status=201)

    async def _key(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {ADMIN}":
            return web.json_response({"type": "/problems/unauthorized"}, status=401)
        return web.json_response({"id": "key_1", "key": SECRET}, status=201)

    async def _pledge(self, request: web.Request) -> web.Response:
        if "Origin" in request.headers:
            self.origins.append(request.headers["Origin"])
            if self.faults.refuse_publishable:
                return web.json_response({"type": "/problems/origin-not-allowed"}, status=403)
        key = request.headers["Idempotency-Key"]
        pledge = self.by_key.get(key)
        if pledge is None:
            pledge = Pledge(f"plg_{next(self._numbers)}", await request.json())
            self.pledges[pledge.id] = self.by_key[key] = pledge
        return web.json_response(self._view(pledge, late=self.faults.late_checkout), status=201)

    async def _look(self, request: web.Request) -> web.Response:
        pledge = self.pledges[request.match_info["id"]]
        if request.query.get("token") != f"token-{pledge.id}":
            return web.json_response({"type": "/problems/unknown-pledge"}, status=404)
        pledge.looked_at += 1
        return web.json_response(self._view(pledge, late=self.faults.late_checkout and pledge.looked_at < 2))

    def _view(self, pledge: Pledge, late: bool) -> dict[str, Any]:
        checkout = None if late else {"url": f"{self.base}/c/{pledge.id}"}
        view = {"id": pledge.id, "status": pledge.status, "checkout": checkout, "token": f"token-{pledge.id}"}
        return view | {"amount": pledge.body["amount"]}

    async def _pay(self, request: web.Request) -> web.Response:
        pledge = self.pledges[request.match_info["id"]]
        card = (await request.json())["card"]
        if card == "4000000000000002":
            return web.json_response({"payment_status": "unpaid"})
        if pledge.status == "open":
            pledge.captures += 1
            pledge.refunds_fail = card == "4000000000005126"
            self._capture(pledge, disputed=card == "4000000000000259")
        return web.json_response({"payment_status": "paid"})

    def _capture(self, pledge: Pledge, disputed: bool) -> None:
        pledge.status = "disputed" if disputed else "paid"
        pledge.captured = pledge.amount
        pledge.disputed = pledge.amount if disputed else Decimal("0.00")
        self.deliveries.append(
            {
                "n": len(self.deliveries) + 1,
                "event": f"evt_{pledge.id}",
                "type": "payment_intent.succeeded",
                "payment_intent": f"pi_{pledge.id}",
                "session": f"cs_{pledge.id}",
                "pledge": pledge.id,
                "acked_at": time.time(),
            }
        )
        self.log.append({"sequence": len(self.log) + 1, "type": "donation.counted", "pledge": pledge.id})
        self._moved.set()

    async def _refund(self, request: web.Request) -> web.Response:
        pledge, key = self.pledges[request.match_info["id"]], request.headers["Idempotency-Key"]
        if request.headers.get("Authorization") != f"Bearer {SECRET}":
            return web.json_response({"type": "/problems/unauthorized"}, status=401)
        if key not in self.refunds:
            amount = (await request.json()).get("amount")
            self.refunds[key] = Decimal(amount["value"]) if amount else pledge.captured - pledge.refunded
            pledge.refunded += Decimal("0.00") if pledge.refunds_fail else self.refunds[key]
        return web.json_response({"id": "rfd_1", "status": "succeeded"}, status=201)

    @property
    def net(self) -> Decimal:
        return sum((pledge.net for pledge in self.pledges.values()), Decimal("0.00"))

    def totals(self) -> dict[str, Any]:
        raised = {"currency": "USD", "value": str(self.net)}
        return {"sequence": len(self.log), "raised": raised, "donations": len(self.log)}

    async def _totals(self, request: web.Request) -> web.Response:
        return web.json_response(self.totals())

    async def _events(self, request: web.Request) -> web.Response:
        after, limit = int(request.query["after"]), min(100, int(request.query["limit"]))
        return web.json_response({"data": self.log[after : after + limit], "next": None})

    async def _delivered(self, request: web.Request) -> web.Response:
        after = int(request.query["after"])
        return web.json_response({"data": self.deliveries[after:], "next": len(self.deliveries)})

    async def _sandbox_books(self, request: web.Request) -> web.Response:
        parts = {
            part: str(sum((getattr(pledge, part) for pledge in self.pledges.values()), Decimal("0.00")))
            for part in ("captured", "refunded", "disputed")
        }
        return web.json_response({"USD": parts | {"fees": "1.23", "net": "0.00"}})

    async def _books(self, request: web.Request) -> web.Response:
        if not request.headers.get("Ataa-Caller"):
            return web.json_response({"type": "/problems/unauthorized"}, status=401)
        return web.json_response({"USD": str(self.net - self.miscounted)})

    async def _live(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            self._moved.clear()
            await response.write(b"event: totals\ndata: " + json.dumps(self.totals()).encode() + b"\n\n")
            await self._moved.wait()
            await asyncio.sleep(0.02)  # at most fifty frames a second


def _nth(every: int, count: int) -> bool:
    return bool(every) and count % every == 0


async def _serve(gateway_port: int, sandbox_port: int, directory: Path) -> None:
    """Serve both ports of a demo, and write the files of an embedded run."""
    backend = FakeBackend(base=f"http://127.0.0.1:{sandbox_port}")
    backend.miscounted = Decimal(sys.argv[4])
    runner = web.AppRunner(backend.application())
    await runner.setup()
    for port in (gateway_port, sandbox_port):
        await web.TCPSite(runner, "127.0.0.1", port).start()
    ports = dict.fromkeys(("pledges", "payments", "leaderboard"), gateway_port)
    (directory / "ports.json").write_text(json.dumps(ports))
    (directory / "keys.json").write_text(json.dumps({"admin": ADMIN, "publishable": "pk_live_demo"}))
    (directory / "secrets.json").write_text(json.dumps({"internal": INTERNAL}))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
