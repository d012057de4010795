"""`python -m bench.webhook_servers intake URL SECRET | floor`: receives webhooks.

`intake` is payments' endpoint on its database, without payments' workers: nothing is applied meanwhile.
`floor` reads the body and answers.
"""

from __future__ import annotations

import sys

from starlette.types import Receive, Scope, Send

from backbone.clock import SystemClock
from backbone.database.database import Database
from backbone.process import run_on_uvloop
from bench.floors import serve_application
from services.payments.app import MIGRATIONS
from services.payments.tables import MESSAGING_TABLES
from services.payments.webhooks.endpoint import with_webhooks
from services.payments.webhooks.receive import WebhookStore


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a request and answer it as payments answers a webhook."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"17")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"received":true}'})


async def intake(url: str, secret: str) -> None:
    """Serve payments' webhook endpoint."""
    database = Database(url, MESSAGING_TABLES)
    await database.migrate(MIGRATIONS)
    try:
        await serve_application(with_webhooks(answer, WebhookStore(database, SystemClock()), [secret]))
    finally:
        await database.close()


def main(name: str, *arguments: str) -> None:
    """Run a server until it is ended."""
    run_on_uvloop(intake(*arguments) if name == "intake" else serve_application(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
