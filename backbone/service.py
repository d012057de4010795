"""The lifecycle of a service: start, supervised workers, health, metrics, drain and stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Response
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from backbone.bus.protocol import BusUnavailable
from backbone.database.transient import is_transient
from backbone.http import problems
from backbone.http.acceptor import Acceptor
from backbone.http.early_answers import protocol_of
from backbone.settings import exit_with_error
from backbone.wakeups import wait_for

STOP_S: Final = 10.0
"""How long workers and open requests may take to end after a stop signal."""

log = structlog.get_logger()
_FAILURES = Counter(
    "ataa_worker_failures_total", "Background workers that failed and were restarted.", ["worker"]
)

Work = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set."""


@dataclass(frozen=True, slots=True)
class Worker:
    """Background work with a service-qualified name such as `payments.outbox`."""

    name: str
    run: Work


async def _do_nothing() -> None:
    return


@dataclass(slots=True)
class Service:
    """A composed service: its ASGI application and its workers.

    `start` opens and migrates databases, before requests are accepted; `close` is called last.
    """

    name: str
    app: ASGIApp
    workers: Sequence[Worker] = ()
    start: Callable[[], Awaitable[None]] = _do_nothing
    close: Callable[[], Awaitable[None]] = _do_nothing
    drain: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a stop begins; streams then end with `event: drain`."""


async def keep_running(worker: Worker, stop: asyncio.Event) -> None:
    """Run `worker` until `stop`; restart it after a failure, with exponential backoff up to 5 s."""
    pause = 0.1
    while not stop.is_set():
        began = asyncio.get_running_loop().time()
        try:
            await worker.run(stop)
        except asyncio.CancelledError:
            raise
        except BusUnavailable as error:
            _FAILURES.labels(worker.name).inc()
            log.warning("worker.bus_unavailable", worker=worker.name, error=str(error))
        except Exception as error:
            if is_transient(error):
                note_interruption(worker.name, error)
            else:
                _FAILURES.labels(worker.name).inc()
                log.exception("worker.failed", worker=worker.name, error=type(error).__name__)
        if not stop.is_set():
            ran_long = asyncio.get_running_loop().time() - began > 30
            pause = 0.1 if ran_long else min(pause * 2, 5.0)
            await wait_for(stop, pause)


def note_interruption(worker: str, error: Exception) -> None:
    """Count and log a transient failure in one line: without a database every worker has one each second."""
    _FAILURES.labels(worker).inc()
    reason = " ".join(str(error).split())[:200]
    log.warning("worker.interrupted", worker=worker, error=type(error).__name__, reason=reason)


async def run_workers(services: Sequence[Service], stop: asyncio.Event) -> None:
    """Run every worker of `services` until `stop`; cancel those that do not end within `STOP_S`."""
    workers = [worker for service in services for worker in service.workers]
    tasks = [asyncio.create_task(keep_running(worker, stop), name=worker.name) for worker in workers]
    await stop.wait()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=STOP_S)
        for task in late:
            log.warning("worker.cancelled", worker=task.get_name())
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def new_app(name: str, secret: str, **options: Any) -> FastAPI:
    """A FastAPI application with problem documents and authenticated callers (`backbone.http.caller`)."""
    telemetry_off: TelemetryConfig = {
        "tracing": False,
        "metrics": False,
        "logs": False,
    }  # metrics are Prometheus's
    app = FastAPI(title=f"Ataa {name}", docs_url=None, redoc_url=None, telemetry=telemetry_off, **options)
    app.state.internal_secret = secret
    problems.install(app)
    return app


def add_routes(app: FastAPI, router: APIRouter) -> None:
    """Add the routes of `router` to `app`.

    `FastAPI.include_router` resolves a request through a nested router: 66 µs for a request that takes 33 µs
    here (eleven routes; the intake of pledges notices).
    """
    app.router.routes.extend(router.routes)


def add_health(app: FastAPI, ready: Callable[[], Awaitable[bool]] | None = None) -> None:
    """Add `/livez`, `/startupz` and `/readyz`. `ready` is bounded and ignores lag, Stripe and the bus."""

    async def is_alive() -> Response:
        return Response("ok\n", media_type="text/plain")

    async def is_ready() -> Response:
        ready_now = ready is None or await ready()
        return Response(
            "ok\n" if ready_now else "not ready\n", 200 if ready_now else 503, media_type="text/plain"
        )

    for path, answer in {"/livez": is_alive, "/startupz": is_alive, "/readyz": is_ready}.items():
        app.add_api_route(path, answer, include_in_schema=False)


async def metrics_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves the metrics of this process in Prometheus's text format, at every path."""
    if scope["type"] != "http":
        return
    headers = [(b"content-type", CONTENT_TYPE_LATEST.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": generate_latest()})


class Server(uvicorn.Server):
    """uvicorn with our acceptor, and without its signal handlers: `serve` handles the process's signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve these sockets, which are bound."""
        await super().startup(sockets=[])
        config = self.config
        make_protocol: Callable[[], asyncio.BaseProtocol] = partial(
            cast(Any, config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        self.servers = [Acceptor(sock, make_protocol) for sock in sockets or ()]  # type: ignore[misc]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, then let the requests of all accepted connections end."""
        for one in self.servers:
            one.close()
            await one.wait_closed()
        await super().shutdown(sockets)


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Bind a TCP socket. A port in use exits with a line that names the port and its setting."""
    # With an explicit protocol: asyncio sets TCP_NODELAY on no other socket, and responses would wait 40 ms.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        exit_with_error(
            f"{setting}: port {port} on {host} cannot be used ({error.strerror}); set {setting} to another"
        )
    return sock


def server(app: ASGIApp) -> Server:
    """A uvicorn server for `app`, without access log; keep-alive outlasts that of the clients' pools.

    An application that has an `early_answer` is asked for it first (`backbone.http.early_answers`).
    """
    config = uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(STOP_S),
        server_header=False,
        proxy_headers=False,
        ws="none",
        log_config=None,
        http=protocol_of(app),
    )
    return Server(config)


async def serve(services: Sequence[Service], endpoints: Sequence[tuple[ASGIApp, socket.socket]]) -> None:
    """Start `services`, serve `endpoints`, and run until SIGTERM or SIGINT.

    A stop first sets the `drain` of every service, so that streams end (uvicorn waits for them without
    limit). Then requests and workers finish, and the services are closed.
    """
    stop = asyncio.Event()
    servers = [(server(app), sock) for app, sock in endpoints]

    def begin_stop() -> None:
        for service in services:
            service.drain.set()
        for one, _ in servers:
            one.should_exit = True

    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, begin_stop)
    try:
        for service in services:
            await service.start()
        working = asyncio.create_task(run_workers(services, stop))
        try:
            await asyncio.gather(*(one.serve(sockets=[sock]) for one, sock in servers))
        finally:
            stop.set()
            await working
    finally:
        for service in reversed(services):
            await service.close()
