"""`python -m rehearsal`: replay a drive, and prove that the books agree to the cent."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from rehearsal.api_client import NoAnswer
from rehearsal.console import Screen
from rehearsal.demo import Options, run_demo, run_demo_on
from rehearsal.donors import IN_FLIGHT, Refused
from rehearsal.installation import CannotPrepare, Installation
from rehearsal.minutes import Replay
from rehearsal.proof import DRAIN_LIMIT_S, Unreadable
from rehearsal.recording import BadRecording
from rehearsal.supervisor import ProcessFailed, ProcessGroups, embedded_processes

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def rehearsal() -> None:
    """Replay a drive through the public API, with a Stripe sandbox."""


def _faults(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        faults = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"not valid JSON ({error})", param_hint="--faults") from error
    if not isinstance(faults, dict):
        raise typer.BadParameter('not a JSON object such as {"duplicate": 3}', param_hint="--faults")
    return faults


@app.command()
def demo(
    exits: Annotated[
        bool, typer.Option("--exit", help="Exit after the proof: 0 if it holds, 1 if not.")
    ] = False,
    recording: Annotated[
        Path | None,
        typer.Option(help="CSV file of a recorded marathon to replay instead of the modelled drive."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="Seconds in which the drive's curve is replayed.")
    ] = 40.0,
    rush_seconds: Annotated[
        float, typer.Option(min=0, max=600, help="Seconds at full speed after the curve.")
    ] = 20.0,
    gifts: Annotated[int, typer.Option(min=10, max=1_000_000, help="Minimum number of donations.")] = 5_000,
    donors: Annotated[int, typer.Option(min=1, max=1_000, help="Concurrent donors.")] = IN_FLIGHT,
    seed: Annotated[int, typer.Option(help="Equal seeds replay equal donations.")] = 2022,
    faults: Annotated[
        str | None, typer.Option(help="Faults of the sandbox as JSON, as for POST /_sandbox/faults.")
    ] = None,
    quiet_seconds: Annotated[
        float, typer.Option(min=1, help="Seconds to wait until the books agree.")
    ] = DRAIN_LIMIT_S,
    real: Annotated[
        bool, typer.Option("--real", help="Run on Kafka and PostgreSQL, one process per service.")
    ] = False,
    port_base: Annotated[
        int | None,
        typer.Option(
            envvar="ATAA_STACK_PORT_BASE", min=1024, max=65000, help="First port of the stack, with --real."
        ),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(envvar="ATAA_DATA_DIR", help="Data directory; the demo uses `demo` in it.")
    ] = Path(".ataa"),
    gateway_port: Annotated[
        int, typer.Option(envvar="ATAA_GATEWAY_PORT", min=1, max=65535, help="Port of the public API.")
    ] = 8000,
    sandbox_port: Annotated[
        int, typer.Option(envvar="ATAA_SANDBOX_PORT", min=1, max=65535, help="Port of the Stripe sandbox.")
    ] = 8012,
) -> None:
    """Start Ataa, replay a drive, and prove that all books agree to the cent."""
    options = Options(
        data_dir=data_dir,
        gateway_port=gateway_port,
        sandbox_port=sandbox_port,
        curve_s=seconds,
        rush_s=rush_seconds,
        gifts=gifts,
        in_flight=donors,
        seed=seed,
        exits=exits,
        recording=recording,
        faults=_faults(faults),
        drain_limit_s=quiet_seconds,
        stack="real" if real else "embedded",
    )
    screen = Screen()
    raise typer.Exit(
        _guarded(screen, lambda: _on_stack(options, port_base, screen))
        if real
        else play(options, screen, embedded_processes)
    )


@app.command()
def rehearse(
    times: Annotated[
        float, typer.Option(min=0.001, max=10_000, help="So many times the recorded donations.")
    ] = 1.0,
    faster: Annotated[
        float, typer.Option(min=1, max=1_000, help="Replay the minutes so many times faster.")
    ] = 1.0,
    minutes: Annotated[
        int, typer.Option(min=1, max=1_440, help="Replay the busiest minutes, so many in a row.")
    ] = 5,
    recording: Annotated[
        Path | None,
        typer.Option(help="CSV file of a recorded marathon; without one, AGDQ 2019's burst is replayed."),
    ] = None,
    donors: Annotated[
        int | None,
        typer.Option(min=1, max=20_000, help="Donors under way at once. Default: five seconds' worth."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds replay equal donations.")] = 2019,
    prometheus: Annotated[
        str | None, typer.Option(help="Address of Prometheus. Default: that of the stack.")
    ] = None,
    grafana: Annotated[
        str, typer.Option(help="Address of Grafana, for the link to the dashboard.")
    ] = "http://127.0.0.1:3000",
    report: Annotated[Path, typer.Option(help="The report's file.")] = Path("rehearsal-report.json"),
    data_dir: Annotated[
        Path, typer.Option(envvar="ATAA_DATA_DIR", help="Data directory of the running stack.")
    ] = Path(".ataa"),
) -> None:
    """Replay a real drive's busiest minutes N times larger or faster on the running stack.

    Start the stack first (`make stack`). Donations go through the public API to a drive of its own, and are
    paid at the sandbox. Exit status 0: the books agree and the dashboard could be read.
    """
    # Imports the clients of Kafka and PostgreSQL, which the embedded demo does not need.
    from rehearsal.rehearse import Rehearsal, run_rehearsal

    rehearsal = Rehearsal(
        data_dir=data_dir,
        replay=Replay(minutes, times, faster),
        recording=recording,
        donors=donors,
        seed=seed,
        prometheus=prometheus,
        grafana=grafana,
        report=report,
    )
    screen = Screen()
    raise typer.Exit(_guarded(screen, lambda: run_rehearsal(rehearsal, screen), "rehearse"))


def _on_stack(options: Options, port_base: int | None, screen: Screen) -> Coroutine[Any, Any, int]:
    """Run on the stack of the data directory if it is running, else on a new one."""
    # Imports the clients of Kafka and PostgreSQL, which the embedded demo does not need.
    from rehearsal.running_stack import RunningStack, find_running

    installation = find_running(options.data_dir)
    if installation is None:
        screen.print_line("No stack is running; starting one for the demo")
        return run_demo(options, screen, _stack_processes(options.data_dir, port_base, screen))
    screen.print_line(f"Using the running stack at {installation.gateway_url}, drive {installation.drive}")
    return run_demo_on(installation, RunningStack(installation.directory), options, screen)


def _stack_processes(
    data_dir: Path, port_base: int | None, screen: Screen
) -> Callable[[Installation], ProcessGroups]:
    from rehearsal.stack_processes import stack_processes

    return lambda installation: stack_processes(installation, data_dir, port_base, screen.print_line)


def play(
    options: Options,
    screen: Screen,
    embedded_processes: Callable[[Installation], ProcessGroups] = embedded_processes,
) -> int:
    """Run the demo; returns 0 if the proof holds, 1 if not or if it cannot run, 130 if interrupted."""
    return _guarded(screen, lambda: run_demo(options, screen, embedded_processes))


def _guarded(screen: Screen, playing: Callable[[], Coroutine[Any, Any, int]], name: str = "demo") -> int:
    try:
        with asyncio.Runner(loop_factory=_event_loop) as runner:
            return runner.run(playing())
    except (BadRecording, CannotPrepare, ProcessFailed, NoAnswer, Refused, Unreadable, OSError) as reason:
        screen.print_line(f"{name}: {reason}")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        screen.print_line(f"{name}: interrupted before the proof")
        return 130


def _event_loop() -> asyncio.AbstractEventLoop:
    """uvloop: the donors share the cores with the system under test, so CPU per request matters."""
    import uvloop

    return uvloop.new_event_loop()


if __name__ == "__main__":
    app()
