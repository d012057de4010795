"""`python -m stack up|status|logs|down`: Kafka, PostgreSQL, Prometheus and the five services, here."""

from __future__ import annotations

import asyncio
import fcntl
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from backbone.settings import load
from stack import kafka, postgres, processes, prometheus
from stack.layout import Layout, read_json, read_ports
from stack.missing import Missing
from stack.opening import CannotStart, check, directory_of, layout_of, start
from stack.parts import ORDER
from stack.settings import StackSettings
from stack.status import Condition, conditions

cli = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False, no_args_is_help=True)
console = Console()


def _refuse(*lines: str) -> NoReturn:
    for line in lines:
        typer.echo(f"stack: {line}", err=True)
    raise typer.Exit(2)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One command at a time starts or ends what is in `directory`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a")
    except OSError as error:
        _refuse(f"ATAA_DATA_DIR: {directory} cannot be written ({error.strerror})")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            _refuse(f"another command is starting or ending the stack in {directory}; wait for it")
        yield


@cli.command()
def up() -> None:
    """Start everything that does not run yet, and wait until it is ready."""
    settings = load(StackSettings)
    if missing := check(settings):
        _refuse(*missing)
    with _alone(directory_of(settings)):
        try:
            layout = layout_of(settings)
            with console.status("starting") as spinner:

                def say(what: str) -> None:
                    console.print(f"  {what}")
                    spinner.update(what)

                asyncio.run(start(settings, layout, say))
        except (CannotStart, Missing, RuntimeError, OSError, subprocess.SubprocessError) as reason:
            _refuse(str(reason))
    console.print(f"The public door is {layout.url('gateway')}")
    console.print(f"Its keys are in {layout.directory}/keys.json", soft_wrap=True)
    if prometheus.find_prometheus():
        console.print(f"Prometheus is {layout.url('prometheus')}")
    console.print("make stack-status, make stack-logs, make stack-down")


@cli.command()
def status() -> None:
    """What runs, on which port, how far behind, with how much memory. Exit 1 if something does not run."""
    directory = directory_of(load(StackSettings))
    found = asyncio.run(conditions(directory))
    if not found:
        console.print(f"No stack in {directory}; make stack starts one.")
        raise typer.Exit(1)
    table = Table("process", "pid", "port", "state", "memory", "waiting", box=None, pad_edge=False)
    for one in found:
        table.add_row(*_row(one))
    console.print(table)
    ours = [one for one in found if one.name in read_json(directory / "parts.json")]
    raise typer.Exit(0 if ours and all(one.ready for one in ours) else 1)


def _row(one: Condition) -> tuple[str, ...]:
    if one.pid is None:
        return one.name, "", str(one.port), "not running", "", ""
    shown = {name: count for name, count in one.waiting.items() if count or name in ("outbox", "behind")}
    waiting = ", ".join(f"{name} {count}" for name, count in shown.items() if name != "backfills")
    state = "ready" if one.ready else "not ready"
    return one.name, str(one.pid), str(one.port), state, f"{one.memory_bytes / 1e6:.0f} MB", waiting


@cli.command()
def logs(
    name: Annotated[str, typer.Argument(help="One process; none: the last lines of each.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of the last lines.")] = 20,
) -> None:
    """Show what the processes wrote."""
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
    """End everything, the services first and the engines last. Data is kept."""
    directory = directory_of(load(StackSettings))
    with _alone(directory):
        ended = []
        for name in reversed(ORDER):
            if processes.stop(
                name, directory / "run", signal.SIGINT if name == "postgres" else signal.SIGTERM
            ):
                console.print(f"  {name} ended")
                ended.append(name)
    if not ended:
        console.print(f"Nothing runs in {directory}.")


@cli.command(hidden=True)
def serve(
    name: Annotated[str, typer.Argument(help="kafka, postgres or prometheus")],
    directory: Annotated[Path, typer.Option(help="The stack's directory, laid out before.")],
) -> None:
    """Prepare an engine and become it: the process keeps its number."""
    serving = {"kafka": kafka.serve, "postgres": postgres.serve, "prometheus": prometheus.serve}
    data_dir = load(StackSettings).data_dir.absolute()
    secrets = read_json(directory / "secrets.json")
    layout = Layout(directory.absolute(), data_dir, read_ports(directory), secrets, "", {})
    try:
        serving[name](layout)
    except (Missing, OSError, subprocess.SubprocessError) as reason:
        _refuse(str(reason))


if __name__ == "__main__":
    cli()
