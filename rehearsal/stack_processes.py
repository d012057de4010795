"""The processes of a demo on the stack: Kafka, PostgreSQL, the sandbox, and one process per service."""

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
    """Kafka, PostgreSQL and the sandbox in the first group, the five services in the second."""

    groups: Sequence[StartGroup]


def stack_processes(
    installation: Installation,
    data_dir: Path,
    port_base: int | None,
    print_line: Callable[[str], None],
    *,
    extra_settings: Mapping[str, str] | None = None,
) -> StackProcesses:
    """A stack in the installation's directory, used by the demo alone.

    Ports start at `port_base`; without it, free ports are used. `extra_settings` are added to the services'
    environment. Raises CannotPrepare where a requirement is missing or a port is in use.
    """
    # Settings of an external Kafka, PostgreSQL or Stripe are ignored: the demo starts its own.
    settings = StackSettings.model_construct(data_dir=data_dir)
    if missing := startup.check(settings):
        raise CannotPrepare("; ".join(missing))
    _have_kafka(data_dir, print_line)
    public_ports = installation.gateway_port, installation.sandbox_port
    ports = free_ports(*public_ports) if port_base is None else ports_from(port_base, *public_ports)
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
        if name not in ("gateway", "sandbox"):  # checked by prepare_installation
            require_free_port(port, "ATAA_STACK_PORT_BASE", name)


def _have_kafka(data_dir: Path, print_line: Callable[[str], None]) -> None:
    try:
        if kafka.find_libraries(data_dir, os.environ) is None:
            print_line("Fetching Apache Kafka's jars with Maven (once)")
            kafka.fetch(data_dir)
    except MissingRequirement as missing:
        raise CannotPrepare(str(missing)) from missing


def _child(spec: ProcessSpec, installation: Installation) -> Child:
    """A process of the stack under the demo's supervisor."""
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
