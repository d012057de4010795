"""The start: what is missing is said, the engines, topics and databases come first, then the services."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from stack import kafka, postgres, processes, prometheus
from stack.keeper import read_kept
from stack.keys import make_publishable_key
from stack.layout import HOST, Layout, lay_out, ports_from, read_ports, write_json
from stack.missing import Missing
from stack.parts import ORDER, Part, engine, keeper, sandbox, service
from stack.settings import SERVICES, StackSettings
from stack.topics import make_topics

READINESS_TIMEOUT_S: Final = 90.0
OURS_S: Final = 60.0
THEIRS_S: Final = 1.0
_LOOK_S: Final = 0.1

Say = Callable[[str], None]


class CannotStart(Exception):
    """A part does not start; the message ends with its last words."""


def check(settings: StackSettings) -> list[str]:
    """Everything that is missing on this machine, each with the way to get it; empty when nothing is."""
    found: list[str] = []

    def note(look: Callable[[], object]) -> None:
        try:
            look()
        except Missing as missing:
            found.append(str(missing))

    if not settings.kafka_bootstrap:
        note(lambda: kafka.find_java(os.environ))
        note(lambda: kafka.find_libraries(settings.data_dir, os.environ) or kafka.find_maven())
    if len(settings.given_databases()) < len(SERVICES):
        note(postgres.find_programs)
        note(lambda: postgres.as_user(Path("/")))
    return found


def directory_of(settings: StackSettings) -> Path:
    """Where this installation's stack lives."""
    return settings.data_dir.absolute() / "stack"


def layout_of(settings: StackSettings) -> Layout:
    """Lay the stack out as the settings say. Raises CannotStart where it runs on other ports."""
    directory = directory_of(settings)
    ports = ports_from(settings.stack_port_base, settings.gateway_port, settings.sandbox_port)
    there = read_ports(directory)
    if there and there != ports and running(directory):
        raise CannotStart(f"this stack runs already on port {there['gateway']}; `make stack-down` ends it")
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


def running(directory: Path) -> list[processes.Running]:
    """The parts that run, in starting order."""
    found = [processes.look(name, directory / "run") for name in ORDER]
    return [one for one in found if one.pid is not None]


def engines_of(settings: StackSettings, layout: Layout) -> list[Part]:
    """The engines that are ours to run here, and the sandbox where there is no Stripe."""
    parts = []
    if len(settings.given_databases()) < len(SERVICES):
        parts.append(engine("postgres", layout))
    if not settings.kafka_bootstrap:
        parts.append(engine("kafka", layout))
    if prometheus.find_prometheus():
        parts.append(engine("prometheus", layout))
    if settings.uses_sandbox:
        parts.append(sandbox(layout))
    return parts


def services_of(settings: StackSettings, layout: Layout) -> list[Part]:
    """The five, told where everything is."""
    given = {**os.environ, **settings.kafka_files()}
    return [service(name, layout, given, sandbox=settings.uses_sandbox) for name in SERVICES]


async def start(settings: StackSettings, layout: Layout, say: Say) -> None:
    """Start what does not run yet, and wait until all is ready. Raises CannotStart, Missing."""
    os.umask(0o077)  # what the processes write is their owner's alone
    if not settings.kafka_bootstrap and kafka.find_libraries(settings.data_dir, os.environ) is None:
        say("fetching Apache Kafka's jars with Maven (once)")
        await asyncio.to_thread(kafka.fetch, settings.data_dir)
    engines = engines_of(settings, layout)
    say("starting " + ", ".join(part.name for part in engines))
    await _start(engines, layout)
    say("making topics and databases")
    await prepare(settings, layout)
    say("starting " + ", ".join(SERVICES))
    services = services_of(settings, layout)
    kept = keeper(layout)
    write_json(
        layout.directory / "parts.json", {part.name: part.probe for part in (*engines, *services, kept)}
    )
    await _start(services, layout)
    await make_publishable_key(layout)
    await asyncio.to_thread(_start_keeper, kept, layout)


async def prepare(settings: StackSettings, layout: Layout) -> None:
    """Topics and databases, where they are not there yet. Raises CannotStart."""
    await _must_let_us_in(settings.given_databases())
    try:
        within_s = THEIRS_S if settings.kafka_bootstrap else OURS_S
        await make_topics(layout.kafka, settings.kafka_prefix, settings.kafka_security(), within_s=within_s)
        own = [name for name in SERVICES if name not in settings.given_databases()]
        if own:
            await postgres.make_databases(layout, own)
    except Exception as error:
        raise CannotStart(
            f"topics and databases could not be made: {type(error).__name__}: {error}"
        ) from error


async def _must_let_us_in(databases: Mapping[str, str]) -> None:
    """Raises CannotStart for the first of somebody's databases that does not, with its reason."""
    asked = [(name, url) for name, url in databases.items() if url.startswith("postgresql:")]
    reasons = await asyncio.gather(*(postgres.why_not(url) for _, url in asked))
    for (name, _), reason in zip(asked, reasons, strict=True):
        if reason:
            raise CannotStart(f"ATAA_DATABASE_URL_{name.upper()}: {reason}")


async def _start(parts: Sequence[Part], layout: Layout) -> None:
    run = layout.directory / "run"
    for part in parts:
        if processes.look(part.name, run).pid is None:
            await _must_be_free(part, layout)
        processes.start(part, run, layout.log(part.name))
    await asyncio.gather(*(_ready(part, layout) for part in parts))


def _start_keeper(part: Part, layout: Layout) -> None:
    """A new one each time: the settings may be others. Raises CannotStart."""
    run = layout.directory / "run"
    processes.stop(part.name, run, part.stop_signal)
    started = processes.start(part, run, layout.log(part.name)).pid
    give_up = time.monotonic() + READINESS_TIMEOUT_S
    while read_kept(layout.directory).pid != started:
        if processes.look(part.name, run).pid is None or time.monotonic() > give_up:
            raise CannotStart(f"{part.name} does not start: {processes.last_words(layout.log(part.name))}")
        time.sleep(_LOOK_S)


async def _must_be_free(part: Part, layout: Layout) -> None:
    port = layout.ports[part.name]
    if await connects(f"tcp://{HOST}:{port}"):
        raise CannotStart(f"port {port} ({part.name}) is in use; choose others with ATAA_STACK_PORT_BASE")


async def _ready(part: Part, layout: Layout) -> None:
    give_up = time.monotonic() + READINESS_TIMEOUT_S
    while not await answers(part.probe):
        if processes.look(part.name, layout.directory / "run").pid is None:
            raise CannotStart(f"{part.name} does not start: {processes.last_words(layout.log(part.name))}")
        if time.monotonic() > give_up:
            words = processes.last_words(layout.log(part.name))
            raise CannotStart(f"{part.name} is not ready after {READINESS_TIMEOUT_S:.0f} s: {words}")
        await asyncio.sleep(_LOOK_S)


async def answers(probe: str) -> bool:
    """Whether a part says that it is ready."""
    if probe.startswith("tcp:"):
        return await connects(probe)
    timeout = aiohttp.ClientTimeout(total=2.0)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(probe) as reply:
            return reply.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def connects(probe: str) -> bool:
    """Whether somebody listens at `tcp://host:port`."""
    place = urlsplit(probe)
    try:
        async with asyncio.timeout(2.0):
            _, writer = await asyncio.open_connection(place.hostname, place.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
