"""The real stack as a demo's cast: Kafka, PostgreSQL, the sandbox, and each service a process of its own."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rehearsal.stage import CannotStage, Stage, must_be_free
from rehearsal.supervise import Act, CannotRun, Child
from stack import kafka, opening, parts
from stack.keys import make_publishable_key
from stack.layout import Layout, free_ports, lay_out, ports_from
from stack.memory import resident_bytes
from stack.missing import Missing
from stack.parts import Part
from stack.settings import SERVICES, StackSettings


@dataclass(frozen=True, slots=True)
class RealCast:
    """Engines and sandbox in the first act, the five services in the second."""

    acts: Sequence[Act]


def cast_of(
    stage: Stage,
    data_dir: Path,
    port_base: int | None,
    say: Callable[[str], None],
    *,
    told: Mapping[str, str] | None = None,
) -> RealCast:
    """The stack in the stage's directory, all of it the demo's own.

    Ports follow `port_base`, or are free ones; the services are `told` further settings. Raises
    CannotStage where something is missing or a port is in use.
    """
    # What leads to somebody's Kafka, PostgreSQL or Stripe is left out: the demo brings its own.
    settings = StackSettings.model_construct(data_dir=data_dir)
    if missing := opening.check(settings):
        raise CannotStage("; ".join(missing))
    _have_kafka(data_dir, say)
    doors = stage.gateway_port, stage.sandbox_port
    ports = free_ports(*doors) if port_base is None else ports_from(port_base, *doors)
    _must_be_free(ports)
    secrets = {"stripe_key": stage.stripe_key, "stripe_webhook": stage.webhook_secret}
    layout = lay_out(stage.directory, data_dir.absolute(), ports, secrets)
    given = {**stage.own_environment(os.environ), **(told or {})}
    engines = [part for part in opening.engines_of(settings, layout) if part.name != "sandbox"]
    sandbox = Child(
        "sandbox",
        stage.sandbox_arguments(),
        stage.sandbox_environment(os.environ),
        stage.directory / "sandbox.log",
        f"{stage.sandbox_url}/livez",
    )
    services = [parts.service(name, layout, given, sandbox=True) for name in SERVICES]
    return RealCast(
        (
            Act([*(_child(part, stage) for part in engines), sandbox], lambda: _prepare(settings, layout)),
            Act([_child(part, stage) for part in services], lambda: _make_key(layout)),
        )
    )


def _must_be_free(ports: Mapping[str, int]) -> None:
    for name, port in ports.items():
        if name not in ("gateway", "sandbox"):  # these were looked at when the stage was set
            must_be_free(port, "ATAA_STACK_PORT_BASE", name)


def _have_kafka(data_dir: Path, say: Callable[[str], None]) -> None:
    try:
        if kafka.find_libraries(data_dir, os.environ) is None:
            say("Fetching Apache Kafka's jars with Maven (once)")
            kafka.fetch(data_dir)
    except Missing as missing:
        raise CannotStage(str(missing)) from missing


def _child(part: Part, stage: Stage) -> Child:
    """A part of the stack under the demo's supervision."""
    return Child(
        part.name,
        part.command[1:],
        part.environment,
        stage.directory / f"{part.name}.log",
        part.probe,
        stop_signal=part.stop_signal,
        weigh=resident_bytes if part.name == "postgres" else None,
    )


async def _prepare(settings: StackSettings, layout: Layout) -> None:
    try:
        await opening.prepare(settings, layout)
    except opening.CannotStart as reason:
        raise CannotRun(str(reason)) from reason


async def _make_key(layout: Layout) -> None:
    try:
        await make_publishable_key(layout)
    except RuntimeError as reason:
        raise CannotRun(str(reason)) from reason
