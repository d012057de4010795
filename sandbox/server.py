"""The composition root: one account behind one HTTP server, with its deliveries and its clockwork."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.account import Account
from sandbox.api import StripeDoor
from sandbox.controls import Controls
from sandbox.deliveries import Deliveries
from sandbox.events import EventLog
from sandbox.faults import FaultDesk
from sandbox.http_server import HttpServer, Reply, Request
from sandbox.journal import Journal
from sandbox.pay_pages import PREFIX, PayPages
from sandbox.plans import do_what_is_due
from sandbox.refusals import broken, unknown_url
from sandbox.shapes import to_json
from sandbox.webhook_client import WebhookClient

BROKEN: Final = Reply(500, to_json(broken().body()).encode())
TICK_S: Final = 0.25
log = logging.getLogger("sandbox")


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: `data` None keeps nothing, `port` 0 takes any free one.

    `public_url` is where donors reach the pages; empty: where it listens.
    """

    port: int
    webhook_url: str
    webhook_secret: str
    api_key: str
    data: Path | None = None
    host: str = "127.0.0.1"
    public_url: str = ""


class Sandbox:
    """A running sandbox: `async with Sandbox(options) as sandbox: sandbox.base_url`.

    Entering raises OSError when the port is taken, sqlite3.Error when the data file cannot be used, and
    ValueError for an unusable webhook address.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = WebhookClient(options.webhook_url)
        self._journal = Journal(options.data)
        self._faults = FaultDesk()
        events = EventLog(self._journal)
        events.drop = self._faults.drops
        events.unsubscribed = self._faults.unsubscribed
        self._account = Account(self._journal, events, "", webhook_url=options.webhook_url)
        self._stripe = StripeDoor(self._account, options.api_key, self._faults)
        self._controls = Controls(self._account, self._faults)
        self._pages = PayPages(self._account)
        self._server = HttpServer(self._reply, BROKEN)
        self._clockwork: asyncio.Task[None] | None = None

    @property
    def base_url(self) -> str:
        return self._account.base_url

    async def __aenter__(self) -> Sandbox:
        port = await self._server.listen(self._options.host, self._options.port)
        self._account.base_url = self._options.public_url or f"http://{self._options.host}:{port}"
        events = self._account.events
        deliveries = Deliveries(events, self._client, self._options.webhook_secret, self._faults)
        events.deliver = deliveries.deliver
        deliveries.resume()
        self._clockwork = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *failure: object) -> None:
        if self._clockwork is not None:
            self._clockwork.cancel()
        await self._server.close()
        await self._client.close()
        self._journal.close()

    async def _tick(self) -> None:
        """Carry out what is due, four times a second; old answers go once an hour."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            ticks += 1
            try:
                do_what_is_due(self._account)
                if ticks % 4 == 0:
                    self._client.sweep()
                    self._server.sweep()
                if ticks % 14_400 == 1:
                    self._stripe.answers.forget_old()
                await self._journal.durable()
            except Exception:
                log.exception("the clockwork failed; it goes on")

    async def _reply(self, request: Request) -> Reply:
        try:
            return await self._routed(request)
        except sqlite3.Error as error:  # a full disk, say: the journal undid what was not committed
            log.error("%s %s not done: %s", request.method, request.target, error)
            return BROKEN

    async def _routed(self, request: Request) -> Reply:
        path, _, query = request.target.partition("?")
        method, headers = request.method, request.headers
        if path.startswith("/v1/"):
            return await self._stripe.answer(request)
        if path.startswith(PREFIX):
            language, content_type = headers.get("accept-language", ""), headers.get("content-type", "")
            return await self._pages.answer(method, path, language, content_type, request.body)
        if path.startswith("/_sandbox/"):
            return await self._controls.answer(method, path, query, request.body)
        if path in ("/livez", "/readyz", "/startupz"):
            return Reply(200, b'{"status":"ok"}')
        refusal = unknown_url(method, path)
        return Reply(refusal.status, to_json(refusal.body()).encode())
