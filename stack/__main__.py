"""`python -m stack`: run Kafka, PostgreSQL, Prometheus and the five services on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from backbone.settings import load
from backbone.telemetry import configure_logs
from stack import kafka, postgres, processes, prometheus
from stack.exclusive_lock import Busy, exclusive_lock
from stack.layout import Layout, read_json, read_ports
from stack.process_specs import ORDER
from stack.requirements import MissingRequirement
from stack.settings import StackSettings
from stack.startup import (
    EXTERNAL_TIMEOUT_S,
    CannotStart,
    check,
    directory_of,
    engines_of,
    layout_of,
    services_of,
    start,
)
from stack.status import ProcessStatus, process_statuses, quarantine_line
from stack.supervisor import Supervisor, forget_state
from stack.topics import make_topics

cli = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False, no_args_is_help=True)
console = Console()

_SUPERVISOR_WAIT_S: Final = 5.0
"""How long a command waits for the lock, which the supervisor holds during a restart."""


def _refuse(*lines: str) -> NoReturn:
    for line in lines:
        typer.echo(f"stack: {line}", err=True)
    raise typer.Exit(2)


@contextmanager
def _exclusive_lock(directory: Path) -> Iterator[None]:
    """Hold the lock of `directory`: one command at a time starts or stops processes in it."""
    with ExitStack() as held:
        try:
            held.enter_context(exclusive_lock(directory, _SUPERVISOR_WAIT_S))
        except Busy:
            _refuse(f"another command is starting or stopping the stack in {directory}; wait for it")
        except OSError as error:
            _refuse(f"ATAA_DATA_DIR: {directory} is not writable ({error.strerror})")
        yield


@cli.command()
def up() -> None:
    """Start every process that does not run yet, and wait until all are ready."""
    settings = load(StackSettings)
    if missing := check(settings):
        _refuse(*missing)
    with _exclusive_lock(directory_of(settings)):
        try:
            layout = layout_of(settings)
            with console.status("starting") as spinner:

                def print_line(what: str) -> None:
                    console.print(f"  {what}")
                    spinner.update(what)

                asyncio.run(start(settings, layout, print_line))
        except (CannotStart, MissingRequirement, RuntimeError, OSError, subprocess.SubprocessError) as reason:
            _refuse(str(reason))
    console.print(f"The public API is at {layout.url('gateway')}")
    console.print(f"Its API keys are in {layout.directory}/keys.json", soft_wrap=True)
    if prometheus.find_prometheus():
        console.print(f"Prometheus is at {layout.url('prometheus')}")
    console.print("See also: make stack-status, make stack-logs, make stack-down")


@cli.command()
def status() -> None:
    """Show each process: port, state, memory, restarts, backlog. Exits with 1 if one is not ready."""
    directory = directory_of(load(StackSettings))
    found = asyncio.run(process_statuses(directory))
    if not found:
        console.print(f"No stack in {directory}; make stack starts one.")
        raise typer.Exit(1)
    columns = ("process", "pid", "port", "state", "memory", "restarts", "waiting")
    table = Table(*columns, box=None, pad_edge=False)
    for one in found:
        table.add_row(*_row(one))
    console.print(table)
    for one in found:
        if one.given_up:
            console.print(f"{one.name} kept crashing: run make stack-logs ARGS={one.name}, then make stack.")
    if line := quarantine_line(found):
        console.print(line, soft_wrap=True)
    ours = [one for one in found if one.name in read_json(directory / "parts.json")]
    raise typer.Exit(0 if ours and all(one.ready for one in ours) else 1)


def _row(one: ProcessStatus) -> tuple[str, ...]:
    port, restarts = str(one.port or ""), str(one.restarts or "")
    if one.pid is None:
        state = "abandoned" if one.given_up else "not running"
        return one.name, "", port, state, "", restarts, ""
    shown = {name: count for name, count in one.waiting.items() if count or name in ("outbox", "behind")}
    waiting = ", ".join(f"{name} {count}" for name, count in shown.items() if name != "backfills")
    state = "ready" if one.ready else "not ready"
    return one.name, str(one.pid), port, state, f"{one.memory_bytes / 1e6:.0f} MB", restarts, waiting


@cli.command()
def logs(
    name: Annotated[str, typer.Argument(help="A process; without one, the last lines of each.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Number of lines.")] = 20,
) -> None:
    """Print the processes' logs."""
    folder = directory_of(load(StackSettings)) / "logs"
    if name and name not in ORDER:
        _refuse(f"there is no process {name}; there are {', '.join(ORDER)}")
    wanted = [name] if name else list(ORDER)
    files = [str(folder / f"{one}.log") for one in wanted if (folder / f"{one}.log").exists()]
    if not files:
        _refuse(f"no logs in {folder}")
    try:
        subprocess.run(["tail", "-n", str(lines), *(["-F"] if follow else []), *files], check=False)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@cli.command()
def down() -> None:
    """Stop all processes, the services first, then the engines. Data is kept."""
    directory = directory_of(load(StackSettings))
    with _exclusive_lock(directory):
        stopped = []
        for name in reversed(ORDER):
            if processes.stop(
                name, directory / "run", signal.SIGINT if name == "postgres" else signal.SIGTERM
            ):
                console.print(f"  {name} stopped")
                stopped.append(name)
        forget_state(directory)
    if not stopped:
        console.print(f"Nothing is running in {directory}.")


@cli.command()
def topics() -> None:
    """Create the missing topics on the external Kafka cluster that ATAA_KAFKA_BOOTSTRAP names."""
    settings = load(StackSettings)
    if not settings.kafka_bootstrap:
        _refuse(
            "ATAA_KAFKA_BOOTSTRAP: must be set (host:port); make stack creates the topics of its own Kafka"
        )
    making = make_topics(
        settings.kafka_bootstrap,
        settings.kafka_prefix,
        settings.kafka_security(),
        within_s=EXTERNAL_TIMEOUT_S,
    )
    try:
        made = asyncio.run(making)
    except (KafkaError, OSError) as reason:
        _refuse(f"topics could not be created: {reason}")
    for name in made:
        console.print(f"  {name} created")
    console.print("All topics exist.")


@cli.command(hidden=True)
def supervise() -> None:
    """Restart crashed processes of the stack, until stopped."""
    settings = load(StackSettings)
    configure_logs("info", settings.log_format)
    os.umask(0o077)
    layout = layout_of(settings)
    Supervisor(
        [*engines_of(settings, layout), *services_of(settings, layout)], layout.directory, layout.log
    ).run()


@cli.command(hidden=True)
def serve(
    name: Annotated[str, typer.Argument(help="kafka, postgres or prometheus")],
    directory: Annotated[Path, typer.Option(help="The stack's directory, as `up` has laid it out.")],
) -> None:
    """Prepare an engine and replace this process by it; the process id stays the same."""
    serving = {"kafka": kafka.serve, "postgres": postgres.serve, "prometheus": prometheus.serve}
    data_dir = load(StackSettings).data_dir.absolute()
    secrets = read_json(directory / "secrets.json")
    layout = Layout(directory.absolute(), data_dir, read_ports(directory), secrets, "", {})
    try:
        serving[name](layout)
    except (MissingRequirement, OSError, subprocess.SubprocessError) as reason:
        _refuse(str(reason))


if __name__ == "__main__":
    cli()
