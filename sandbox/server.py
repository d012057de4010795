"""The composition root: one account behind one HTTP server, with webhook delivery and a timer."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox.account import Account
from sandbox.api import StripeApi
from sandbox.controls import Controls
from sandbox.deliveries import Deliveries
from sandbox.errors import server_error, unknown_url
from sandbox.events import EventLog
from sandbox.faults import FaultControl
from sandbox.http_server import HttpServer, Reply, Request
from sandbox.journal import Journal
from sandbox.link_pages import LINK_PREFIX, LinkPages
from sandbox.pay_pages import PREFIX, PayPages
from sandbox.schedule import run_due_actions
from sandbox.stripe_objects import to_json
from sandbox.webhook_client import WebhookClient

SERVER_ERROR: Final = Reply(500, to_json(server_error().body()).encode())
TICK_S: Final = 0.25
log = logging.getLogger("sandbox")


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a sandbox. Without `data`, no state is kept; `port` 0 takes a free one.

    `public_url` is the address of the payment pages as donors reach them; empty for the listening address.
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

    The constructor raises sqlite3.Error for an unusable data file and ValueError for an invalid webhook
    address; entering raises OSError when the port is in use.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = WebhookClient(options.webhook_url)
        self._journal = Journal(options.data)
        self._faults = FaultControl()
        events = EventLog(self._journal)
        events.drop = self._faults.should_drop
        events.unsubscribed = self._faults.unsubscribed
        self._account = Account(self._journal, events, "", webhook_url=options.webhook_url)
        self._stripe = StripeApi(self._account, options.api_key, self._faults)
        self._controls = Controls(self._account, self._faults)
        self._pages = PayPages(self._account)
        self._links = LinkPages(self._account, self._pages)
        self._server = HttpServer(self._reply, SERVER_ERROR)
        self._ticker: asyncio.Task[None] | None = None

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
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *failure: object) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        await self._server.close()
        await self._client.close()
        self._journal.close()

    async def _tick(self) -> None:
        """Run due actions four times a second; close idle connections; delete expired responses hourly."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            ticks += 1
            try:
                run_due_actions(self._account)
                if ticks % 4 == 0:
                    self._client.sweep()
                    self._server.sweep()
                if ticks % 14_400 == 1:
                    self._stripe.answers.delete_expired()
                await self._journal.durable()
            except Exception:
                log.exception("a scheduled action failed; continuing")

    async def _reply(self, request: Request) -> Reply:
        try:
            return await self._route(request)
        except sqlite3.Error as error:  # a full disk, for example; the journal has rolled back
            log.error("%s %s failed: %s", request.method, request.target, error)
            return SERVER_ERROR

    async def _route(self, request: Request) -> Reply:
        path, _, query = request.target.partition("?")
        method, headers = request.method, request.headers
        if path.startswith("/v1/"):
            return await self._stripe.answer(request)
        if path.startswith(PREFIX):
            language, content_type = headers.get("accept-language", ""), headers.get("content-type", "")
            return await self._pages.answer(method, path, language, content_type, request.body)
        if path.startswith(LINK_PREFIX):
            return await self._links.answer(method, request.target, request.body)
        if path.startswith("/_sandbox/"):
            return await self._controls.answer(method, path, query, request.body)
        if path in ("/livez", "/readyz", "/startupz"):
            return Reply(200, b'{"status":"ok"}')
        api_error = unknown_url(method, path)
        return Reply(api_error.status, to_json(api_error.body()).encode())
