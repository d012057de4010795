"""Runs one service as its own process: on Kafka, with its own port, database and metrics.

The port is opened at once and answers `not ready` until the database is reachable and migrated, so services
can start in any order. Unavailable dependencies are retried, with a log line for each attempt.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
import uvloop
from pydantic import Field
from starlette.types import Receive, Scope, Send

from backbone.bus.kafka_security import PLAINTEXT, KafkaSecurity, KafkaSettings, connection_failure
from backbone.bus.protocol import EventBus
from backbone.http.early_answers import EarlyAnswer
from backbone.http.service_client import ServiceClientPools
from backbone.service import Service, Worker, listen, metrics_app, run_workers, serve
from backbone.settings import Settings, exit_with_error, load
from backbone.telemetry import configure_logs
from backbone.wakeups import wait_for

RETRY_S: Final = 2.0

log = structlog.get_logger()


class ProcessSettings(KafkaSettings):
    """Settings of every process where each service has its own."""

    service_host: str = Field(
        "127.0.0.1",
        description="Address on which pledges, payments, leaderboard, notify and all metrics listen.",
    )


Kind = TypeVar("Kind", bound=Settings)
Compose = Callable[[Kind, EventBus, ServiceClientPools], Service]
"""Composes a service from its settings, its bus and connection pools to the other services."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """The address a process listens on; an empty host is `ATAA_SERVICE_HOST`."""

    port: int
    host: str = ""


def run_process(
    name: str,
    kind: type[Kind],
    compose: Compose[Kind],
    address_of: Callable[[Kind], ListenAddress],
    *,
    ready_with_bus: bool = False,
) -> None:
    """Serve one service until SIGTERM or SIGINT. An invalid setting exits with one line and status 2.

    With `ready_with_bus`, the service is not ready until Kafka has been reached once. Not for the services
    that donations depend on.
    """
    process, settings = load(ProcessSettings), load(kind)
    configure_logs(process.log_level, process.log_format)
    if not process.kafka_bootstrap:
        exit_with_error(
            "ATAA_KAFKA_BOOTSTRAP: must be set (host:port); to run without Kafka, use python -m embedded"
        )
    if not process.internal_secret.get_secret_value():
        exit_with_error("ATAA_INTERNAL_SECRET: must be set, to the same value for every service")

    async def run() -> None:
        # Imported here, so that the embedded run does not need Kafka's client.
        from backbone.bus.kafka import KafkaBus

        address = address_of(settings)
        http_socket = listen(address.host or process.service_host, address.port, f"ATAA_{name.upper()}_PORT")
        metrics = listen(process.service_host, process.metrics_port, "ATAA_METRICS_PORT")
        security = process.kafka_security()
        bus = KafkaBus(
            process.kafka_bootstrap,
            prefix=process.kafka_prefix,
            session_timeout_ms=int(process.kafka_session_s * 1000),
            security=security,
        )
        pools = ServiceClientPools()
        try:
            service = compose(settings, bus, pools)
        except ValueError as error:
            exit_with_error(str(error))
        gate = StartupGate(service, process.kafka_bootstrap, security, ready_with_bus=ready_with_bus)

        async def close() -> None:
            await service.close()
            await pools.close()
            await bus.close()

        gated_service = Service(name, gate, gate.workers, close=close, drain=service.drain)
        log.info("process.listening", service=name, port=address.port, metrics=metrics.getsockname()[1])
        await serve([gated_service], [(gate, http_socket), (metrics_app, metrics)])

    run_on_uvloop(run())


def run_on_uvloop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop, with a garbage collector tuned for short-lived objects."""
    # Imported modules live as long as the process; rows and events are short-lived. A collection traverses
    # all objects that are not frozen, and by default one runs every 700 allocations.
    gc.freeze()
    # 10,000 young objects with what they refer to are some 3 MB that nobody needs until then.
    gc.set_threshold(10_000, 10, 500)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


class StartupGate:
    """The ASGI application of a service that is starting: alive, but not ready before its database is."""

    def __init__(
        self,
        service: Service,
        bootstrap: str,
        security: KafkaSecurity = PLAINTEXT,
        *,
        ready_with_bus: bool,
    ) -> None:
        self.workers = [
            Worker(f"{service.name}.opening", self._start_service),
            Worker(f"{service.name}.kafka", self._wait_for_kafka),
        ]
        # It answers nothing before the service has started and read what it answers from.
        self.early_answer: EarlyAnswer | None = getattr(service.app, "early_answer", None)
        self._service = service
        self._bootstrap = bootstrap
        self._security = security
        self._waits_for_bus = ready_with_bus
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path")
        if self._started and not (self._waits_for_bus and path == "/readyz"):
            await self._service.app(scope, receive, send)
        elif path == "/livez":
            await _respond(send, 200, b"ok\n")
        elif path in ("/readyz", "/startupz"):
            await _respond(
                send, 503, b"not ready: " + (b"Kafka" if self._started else b"the database") + b"\n"
            )
        else:
            await _respond(send, 503, _NOT_READY, b"application/problem+json")

    async def _start_service(self, stop: asyncio.Event) -> None:
        """Reach and migrate the database, retrying without limit, then run the service's workers."""
        while not stop.is_set():
            try:
                await self._service.start()
            except Exception as error:
                log.warning(
                    "process.database_unavailable", service=self._service.name, error=_one_line(error)
                )
                await wait_for(stop, RETRY_S)
            else:
                self._started = True
                log.info("process.opened", service=self._service.name)
                await run_workers([self._service], stop)

    async def _wait_for_kafka(self, stop: asyncio.Event) -> None:
        """Log until Kafka is reachable. Outboxes and consumers retry by themselves."""
        while not stop.is_set():
            reason = await connection_failure(self._bootstrap, self._security)
            if not reason:
                self._waits_for_bus = False
                await stop.wait()
                return
            log.warning("process.kafka_unavailable", service=self._service.name, error=reason)
            await wait_for(stop, RETRY_S)


_NOT_READY: Final = (
    b'{"type": "/problems/not-ready", "title": "Not ready yet", "status": 503,'
    b' "detail": "This service is starting; try again in a moment."}'
)


async def _respond(send: Send, status: int, body: bytes, kind: bytes = b"text/plain") -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _one_line(error: BaseException) -> str:
    """The error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
