"""The composition root: one account behind one HTTP server, with its deliveries and its clockwork."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from rehearsal.sandbox.account import Account
from rehearsal.sandbox.api import Reply, StripeDoor
from rehearsal.sandbox.controls import Controls
from rehearsal.sandbox.deliveries import Deliveries
from rehearsal.sandbox.events import EventLog
from rehearsal.sandbox.faults import FaultDesk
from rehearsal.sandbox.journal import Journal
from rehearsal.sandbox.pay_pages import PREFIX, PayPages
from rehearsal.sandbox.plans import do_what_is_due
from rehearsal.sandbox.refusals import broken, unknown_url
from rehearsal.sandbox.shapes import to_json
from rehearsal.sandbox.webhook_client import WebhookClient

LARGEST_BODY: Final = 1 << 20
HOLD_S: Final = 60
TICK_S: Final = 0.25
log = logging.getLogger("rehearsal.sandbox")


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: `data` None keeps nothing, `port` 0 takes any free one."""

    port: int
    webhook_url: str
    webhook_secret: str
    api_key: str
    data: Path | None = None
    host: str = "127.0.0.1"


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
        self._account = Account(self._journal, events, "")
        self._stripe = StripeDoor(self._account, options.api_key, self._faults)
        self._controls = Controls(self._account, self._faults)
        self._pages = PayPages(self._account)
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None, keepalive_timeout=75.0), shutdown_timeout=0.5
        )
        self._clockwork: asyncio.Task[None] | None = None

    @property
    def base_url(self) -> str:
        return self._account.base_url

    async def __aenter__(self) -> Sandbox:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._options.host, self._options.port, backlog=1024)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self._account.base_url = f"http://{host}:{port}"
        events = self._account.events
        deliveries = Deliveries(events, self._client, self._options.webhook_secret, self._faults)
        events.deliver = deliveries.deliver
        deliveries.resume()
        self._clockwork = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *failure: object) -> None:
        if self._clockwork is not None:
            self._clockwork.cancel()
        await self._runner.cleanup()
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
                if ticks % 14_400 == 1:
                    self._stripe.answers.forget_old()
                await self._journal.durable()
            except Exception:
                log.exception("the clockwork failed; it goes on")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            reply = await self._reply(request)
        except web.HTTPException:
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.raw_path)
            reply = Reply(500, to_json(broken().body()).encode())
        if reply.held:
            await _hold(request)
        return web.Response(
            status=reply.status,
            body=reply.body,
            headers={"Content-Type": reply.content_type, **reply.headers},
        )

    async def _reply(self, request: web.BaseRequest) -> Reply:
        path, _, query = request.raw_path.partition("?")
        method, headers = request.method, request.headers
        if path.startswith("/v1/"):
            return await self._stripe.answer(method, request.raw_path, headers, request.read)
        if path.startswith(PREFIX):
            language, content_type = headers.get("Accept-Language", ""), headers.get("Content-Type", "")
            return await self._pages.answer(method, path, language, content_type, await request.read())
        if path.startswith("/_sandbox/"):
            return await self._controls.answer(method, path, query, await request.read())
        if path == "/livez":
            return Reply(200, b'{"status":"ok"}')
        refusal = unknown_url(method, path)
        return Reply(refusal.status, to_json(refusal.body()).encode())


async def _hold(request: web.BaseRequest) -> None:
    """Let the client wait until it gives up, at most HOLD_S, and close without an answer."""
    for _ in range(HOLD_S):
        await asyncio.sleep(1)
        if request.transport is None or request.transport.is_closing():
            break
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError
