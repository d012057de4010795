"""The real stack as a demo's cast: Kafka, PostgreSQL, the sandbox, and each service a process of its own."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rehearsal.installation import CannotPrepare, Installation, require_free_port
from rehearsal.supervisor import Child, ProcessFailed, StartGroup
from stack import kafka, process_specs, startup
from stack.keys import make_publishable_key
from stack.layout import Layout, free_ports, lay_out, ports_from
from stack.memory import resident_bytes
from stack.process_specs import ProcessSpec
from stack.requirements import MissingRequirement
from stack.settings import SERVICES, StackSettings


@dataclass(frozen=True, slots=True)
class StackProcesses:
    """Engines and sandbox in the first act, the five services in the second."""

    groups: Sequence[StartGroup]


def stack_processes(
    installation: Installation,
    data_dir: Path,
    port_base: int | None,
    print_line: Callable[[str], None],
    *,
    extra_settings: Mapping[str, str] | None = None,
) -> StackProcesses:
    """The stack in the stage's directory, all of it the demo's own.

    Ports follow `port_base`, or are free ones; the services are `extra_settings` further settings. Raises
    CannotPrepare where something is missing or a port is in use.
    """
    # What leads to somebody's Kafka, PostgreSQL or Stripe is left out: the demo brings its own.
    settings = StackSettings.model_construct(data_dir=data_dir)
    if missing := startup.check(settings):
        raise CannotPrepare("; ".join(missing))
    _have_kafka(data_dir, print_line)
    doors = installation.gateway_port, installation.sandbox_port
    ports = free_ports(*doors) if port_base is None else ports_from(port_base, *doors)
    _require_free_ports(ports)
    secrets = {"stripe_key": installation.stripe_key, "stripe_webhook": installation.webhook_secret}
    layout = lay_out(installation.directory, data_dir.absolute(), ports, secrets)
    given = {**installation.own_environment(os.environ), **(extra_settings or {})}
    engines = [spec for spec in startup.engines_of(settings, layout) if spec.name != "sandbox"]
    sandbox = Child(
        "sandbox",
        installation.sandbox_arguments(),
        installation.sandbox_environment(os.environ),
        installation.directory / "sandbox.log",
        f"{installation.sandbox_url}/livez",
    )
    services = [process_specs.service(name, layout, given, sandbox=True) for name in SERVICES]
    return StackProcesses(
        (
            StartGroup(
                [*(_child(spec, installation) for spec in engines), sandbox],
                lambda: _prepare(settings, layout),
            ),
            StartGroup([_child(spec, installation) for spec in services], lambda: _make_key(layout)),
        )
    )


def _require_free_ports(ports: Mapping[str, int]) -> None:
    for name, port in ports.items():
        if name not in ("gateway", "sandbox"):  # these were looked at when the stage was set
            require_free_port(port, "ATAA_STACK_PORT_BASE", name)


def _have_kafka(data_dir: Path, print_line: Callable[[str], None]) -> None:
    try:
        if kafka.find_libraries(data_dir, os.environ) is None:
            print_line("Fetching Apache Kafka's jars with Maven (once)")
            kafka.fetch(data_dir)
    except MissingRequirement as missing:
        raise CannotPrepare(str(missing)) from missing


def _child(spec: ProcessSpec, installation: Installation) -> Child:
    """A part of the stack under the demo's supervision."""
    return Child(
        spec.name,
        spec.command[1:],
        spec.environment,
        installation.directory / f"{spec.name}.log",
        spec.probe,
        stop_signal=spec.stop_signal,
        measure_bytes=resident_bytes if spec.name == "postgres" else None,
    )


async def _prepare(settings: StackSettings, layout: Layout) -> None:
    try:
        await startup.prepare(settings, layout)
    except startup.CannotStart as reason:
        raise ProcessFailed(str(reason)) from reason


async def _make_key(layout: Layout) -> None:
    try:
        await make_publishable_key(layout)
    except RuntimeError as reason:
        raise ProcessFailed(str(reason)) from reason
