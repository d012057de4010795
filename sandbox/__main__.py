"""`python -m sandbox`: serve the Stripe sandbox until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from typer.exceptions import TyperException

from sandbox.server import Options, Sandbox

DEFAULT_API_KEY = "sk_test_sandbox"
DEFAULT_WEBHOOK_SECRET = "whsec_sandbox"  # noqa: S105 - signs test payments only


def serve(
    port: Annotated[
        int,
        typer.Option(
            envvar="ATAA_SANDBOX_PORT", min=0, max=65535, help="Port to listen on; 0 takes a free one."
        ),
    ] = 8012,
    webhook_url: Annotated[
        str,
        typer.Option(
            help="http:// address of the webhook receiver (default: the gateway's /webhooks/stripe)."
        ),
    ] = "",
    webhook_secret: Annotated[
        str,
        typer.Option(
            envvar="ATAA_STRIPE_WEBHOOK_SECRETS",
            help="Secret that signs the webhooks: the first of a comma-separated list.",
        ),
    ] = DEFAULT_WEBHOOK_SECRET,
    api_key: Annotated[
        str, typer.Option(envvar="ATAA_STRIPE_API_KEY", help="The only API key that is accepted.")
    ] = DEFAULT_API_KEY,
    data: Annotated[
        Path | None,
        typer.Option(help="SQLite file for all state; without it, state is lost when the process ends."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; use another one only inside a container.")
    ] = "127.0.0.1",
    public_url: Annotated[
        str, typer.Option(help="Address of the payment pages as donors reach them, if it differs.")
    ] = "",
    exit_with_parent: Annotated[
        bool, typer.Option(help="Exit when standard input is closed, for example when the parent dies.")
    ] = False,
) -> None:
    """Serve the Stripe sandbox on the loopback interface, unless --host names another one."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    url = webhook_url or f"http://127.0.0.1:{os.environ.get('ATAA_GATEWAY_PORT', '8000')}/webhooks/stripe"
    secret = webhook_secret.partition(",")[0].strip() or DEFAULT_WEBHOOK_SECRET
    options = Options(port, url, secret, api_key or DEFAULT_API_KEY, data, host, public_url.rstrip("/"))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(options, exit_with_parent))
    except OSError as error:
        raise _stopped(f"cannot listen on {host}:{port} (ATAA_SANDBOX_PORT): {error.strerror}") from None
    except sqlite3.Error as error:
        raise _stopped(f"cannot use the data file {data}: {error}") from None
    except ValueError as error:
        raise _stopped(str(error)) from None


def _stopped(reason: str) -> typer.Exit:
    typer.echo(f"sandbox: {reason}", err=True)
    return typer.Exit(2)


async def _serve(options: Options, exit_with_parent: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if exit_with_parent:
        threading.Thread(target=_await_end_of_input, args=(loop, stop), daemon=True).start()
    async with Sandbox(options) as sandbox:
        typer.echo(f"sandbox: listening on {sandbox.base_url}")
        sys.stdout.flush()
        await stop.wait()


def _await_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Set `stop` when standard input reaches EOF: the parent's death closes the pipe, even by SIGKILL."""
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)


def main() -> None:
    """Run the command line. An invalid setting prints one line that names it and exits with status 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(serve)
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as error:
        reason = error.format_message() if isinstance(error, typer.BadParameter) else str(error)
        typer.echo(f"sandbox: {reason}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
