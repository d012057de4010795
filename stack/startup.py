"""Starts a stack: checks requirements, then engines, topics and databases, then services."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from stack import kafka, postgres, processes, prometheus
from stack.keys import make_publishable_key
from stack.layout import HOST, Layout, lay_out, ports_from, read_ports, write_json
from stack.log_tail import log_tail
from stack.probes import connects, is_ready
from stack.process_specs import ORDER, ProcessSpec, engine, sandbox, service, supervisor
from stack.requirements import MissingRequirement
from stack.settings import SERVICES, StackSettings
from stack.supervisor import read_supervisor_state
from stack.topics import make_topics

READINESS_TIMEOUT_S: Final = 90.0
OWN_TIMEOUT_S: Final = 60.0
EXTERNAL_TIMEOUT_S: Final = 1.0
_POLL_S: Final = 0.1

PrintLine = Callable[[str], None]


class CannotStart(Exception):
    """A process does not start; the message has the reason or its log tail."""


def check(settings: StackSettings) -> list[str]:
    """The missing requirements, each with the way to get it; empty when there are none."""
    found: list[str] = []

    def require(find: Callable[[], object]) -> None:
        try:
            find()
        except MissingRequirement as missing:
            found.append(str(missing))

    if not settings.kafka_bootstrap:
        require(lambda: kafka.find_java(os.environ))
        require(lambda: kafka.find_libraries(settings.data_dir, os.environ) or kafka.find_maven())
    if len(settings.given_databases()) < len(SERVICES):
        require(postgres.find_programs)
        require(lambda: postgres.as_user(Path("/")))
    return found


def directory_of(settings: StackSettings) -> Path:
    """The directory of this installation's stack."""
    return settings.data_dir.absolute() / "stack"


def layout_of(settings: StackSettings) -> Layout:
    """Lay out the stack as the settings require. Raises CannotStart where it runs on other ports."""
    directory = directory_of(settings)
    ports = ports_from(settings.stack_port_base, settings.gateway_port, settings.sandbox_port)
    there = read_ports(directory)
    if there and there != ports and running(directory):
        raise CannotStart(
            f"this stack is already running on port {there['gateway']}; `make stack-down` stops it"
        )
    return lay_out(
        directory,
        settings.data_dir.absolute(),
        ports,
        {
            "admin": settings.admin_key.get_secret_value(),
            "token": settings.token_secret.get_secret_value(),
            "internal": settings.internal_secret.get_secret_value(),
        },
        kafka=settings.kafka_bootstrap,
        databases=settings.given_databases(),
    )


def running(directory: Path) -> list[processes.ProcessRecord]:
    """The running processes, in starting order."""
    found = [processes.find(name, directory / "run") for name in ORDER]
    return [one for one in found if one.pid is not None]


def engines_of(settings: StackSettings, layout: Layout) -> list[ProcessSpec]:
    """The engines that are not external, and the sandbox where no Stripe account is set."""
    specs = []
    if len(settings.given_databases()) < len(SERVICES):
        specs.append(engine("postgres", layout))
    if not settings.kafka_bootstrap:
        specs.append(engine("kafka", layout))
    if prometheus.find_prometheus():
        specs.append(engine("prometheus", layout))
    if settings.uses_sandbox:
        specs.append(sandbox(layout))
    return specs


def services_of(settings: StackSettings, layout: Layout) -> list[ProcessSpec]:
    """The five services, configured for this layout."""
    given = {**os.environ, **settings.kafka_files()}
    return [service(name, layout, given, sandbox=settings.uses_sandbox) for name in SERVICES]


async def start(settings: StackSettings, layout: Layout, print_line: PrintLine) -> None:
    """Start what does not run, and wait until all is ready. Raises CannotStart, MissingRequirement."""
    os.umask(0o077)  # files that the processes write are readable by their owner only
    if not settings.kafka_bootstrap and kafka.find_libraries(settings.data_dir, os.environ) is None:
        print_line("fetching Apache Kafka's jars with Maven (once)")
        await asyncio.to_thread(kafka.fetch, settings.data_dir)
    engines = engines_of(settings, layout)
    print_line("starting " + ", ".join(spec.name for spec in engines))
    await _start(engines, layout)
    print_line("creating topics and databases")
    await prepare(settings, layout)
    print_line("starting " + ", ".join(SERVICES))
    services = services_of(settings, layout)
    supervising = supervisor(layout)
    write_json(
        layout.directory / "parts.json",
        {spec.name: spec.probe for spec in (*engines, *services, supervising)},
    )
    await _start(services, layout)
    await make_publishable_key(layout)
    await asyncio.to_thread(_start_supervisor, supervising, layout)


async def prepare(settings: StackSettings, layout: Layout) -> None:
    """Create the missing topics and databases. Raises CannotStart."""
    await _require_database_access(settings.given_databases())
    try:
        within_s = EXTERNAL_TIMEOUT_S if settings.kafka_bootstrap else OWN_TIMEOUT_S
        await make_topics(layout.kafka, settings.kafka_prefix, settings.kafka_security(), within_s=within_s)
        own = [name for name in SERVICES if name not in settings.given_databases()]
        if own:
            await postgres.make_databases(layout, own)
    except Exception as error:
        raise CannotStart(
            f"topics and databases could not be created: {type(error).__name__}: {error}"
        ) from error


async def _require_database_access(databases: Mapping[str, str]) -> None:
    """Raises CannotStart for the first external database that rejects the connection, with its reason."""
    asked = [(name, url) for name, url in databases.items() if url.startswith("postgresql:")]
    reasons = await asyncio.gather(*(postgres.connection_error(url) for _, url in asked))
    for (name, _), reason in zip(asked, reasons, strict=True):
        if reason:
            raise CannotStart(f"ATAA_DATABASE_URL_{name.upper()}: {reason}")


async def _start(specs: Sequence[ProcessSpec], layout: Layout) -> None:
    run = layout.directory / "run"
    for spec in specs:
        if processes.find(spec.name, run).pid is None:
            await _require_free_port(spec, layout)
        processes.start(spec, run, layout.log(spec.name))
    await asyncio.gather(*(_ready(spec, layout) for spec in specs))


def _start_supervisor(spec: ProcessSpec, layout: Layout) -> None:
    """Start a new supervisor each time, because the settings may have changed. Raises CannotStart."""
    run = layout.directory / "run"
    processes.stop(spec.name, run, spec.stop_signal)
    started = processes.start(spec, run, layout.log(spec.name)).pid
    give_up = time.monotonic() + READINESS_TIMEOUT_S
    while read_supervisor_state(layout.directory).pid != started:
        if processes.find(spec.name, run).pid is None or time.monotonic() > give_up:
            raise CannotStart(f"{spec.name} does not start: {log_tail(layout.log(spec.name))}")
        time.sleep(_POLL_S)


async def _require_free_port(spec: ProcessSpec, layout: Layout) -> None:
    port = layout.ports[spec.name]
    if await connects(f"tcp://{HOST}:{port}"):
        raise CannotStart(f"port {port} ({spec.name}) is in use; choose others with ATAA_STACK_PORT_BASE")


async def _ready(spec: ProcessSpec, layout: Layout) -> None:
    give_up = time.monotonic() + READINESS_TIMEOUT_S
    while not await is_ready(spec.probe):
        if processes.find(spec.name, layout.directory / "run").pid is None:
            raise CannotStart(f"{spec.name} does not start: {log_tail(layout.log(spec.name))}")
        if time.monotonic() > give_up:
            tail = log_tail(layout.log(spec.name))
            raise CannotStart(f"{spec.name} is not ready after {READINESS_TIMEOUT_S:.0f} s: {tail}")
        await asyncio.sleep(_POLL_S)
