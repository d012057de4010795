"""A receiver of the sandbox's webhooks, and a client with Stripe's library."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import stripe
from aiohttp import web
from stripe._refund import Refund
from stripe.checkout import Session

API_KEY = "sk_test_bench"
SECRET = "whsec_bench"


class Receiver:
    """Verifies each webhook's signature, records it, and answers `status`."""

    def __init__(self, port: int = 0) -> None:
        self.events: list[dict[str, Any]] = []
        self.arrived_at: list[float] = []
        self.status = 200
        self._port = port
        self._runner = web.ServerRunner(web.Server(self._receive))

    async def __aenter__(self) -> Receiver:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/webhooks/stripe"

    async def _receive(self, request: web.BaseRequest) -> web.Response:
        body = (await request.read()).decode()
        stripe.WebhookSignature.verify_header(body, request.headers["Stripe-Signature"], SECRET, 300)
        assert request.path == "/webhooks/stripe"
        self.arrived_at.append(time.time())
        self.events.append(json.loads(body))
        return web.Response(status=self.status)

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The objects of the events of one type."""
        return [event["data"]["object"] for event in self.events if event["type"] == kind]


@dataclass
class Donor:
    """A client of the sandbox at `base`: opens and pays sessions, sets faults, reads books."""

    base: str
    stripe: stripe.StripeClient
    http: aiohttp.ClientSession
    opened: int = field(default=0)

    def session_params(self, amount: int = 2500, currency: str = "usd", **others: Any) -> Any:
        """The parameters of a donation's session, as payments sends them."""
        self.opened += 1
        pledge = {"ataa_pledge": f"plg_{self.opened}"}
        price = {"currency": currency, "unit_amount": amount, "product_data": {"name": "Winter"}}
        return {
            "mode": "payment",
            "submit_type": "donate",
            "line_items": [{"quantity": 1, "price_data": price}],
            "client_reference_id": pledge["ataa_pledge"],
            "metadata": pledge,
            "payment_intent_data": {"metadata": pledge},
            "success_url": "http://example.org/thanks?s={CHECKOUT_SESSION_ID}",
            "adaptive_pricing": {"enabled": False},
        } | others

    async def session(self, amount: int = 2500, currency: str = "usd", **others: Any) -> Session:
        session_params = self.session_params(amount, currency, **others)
        return await self.stripe.v1.checkout.sessions.create_async(session_params)

    async def pay(self, session_id: str, card: str = "4242424242424242") -> dict[str, Any]:
        status, answer = await self.post(f"/c/pay/{session_id}/pay", {"card": card})
        return {"http_status": status} | answer

    async def donate(self, amount: int = 2500, card: str = "4242424242424242", currency: str = "usd") -> str:
        """Open and pay a session; returns the payment intent's id."""
        session = await self.session(amount, currency)
        paid = await self.pay(session.id, card)
        assert paid["payment_status"] == "paid", paid
        return str(paid["payment_intent"])

    async def refund(self, payment: str, amount: int | None = None) -> Refund:
        session_params: Any = {"payment_intent": payment} | ({"amount": amount} if amount else {})
        return await self.stripe.v1.refunds.create_async(session_params)

    async def dispute(self, payment: str, status: str, **details: Any) -> tuple[int, dict[str, Any]]:
        session_params = {"payment_intent": payment, "status": status} | details
        return await self.post("/_sandbox/disputes", session_params)

    async def faults(self, **faults: Any) -> None:
        status, answer = await self.post("/_sandbox/faults", faults)
        assert status == 200, answer

    async def books(self) -> dict[str, dict[str, str]]:
        books: dict[str, dict[str, str]] = await self.get("/_sandbox/books")
        return books

    async def undelivered(self) -> list[str]:
        """Types of the undelivered events, newest first."""
        page = await self.stripe.v1.events.list_async({"delivery_success": False, "limit": 100})
        return [event.type for event in page.data]

    async def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.base + path, json=body) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> Any:
        async with self.http.get(self.base + path) as response:
            assert response.status == 200, await response.text()
            return await response.json()
