"""`python -m bench`: measure all figures, or compare the delay of two checkouts."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import attack as attack_figures
from bench import drives as drives_of
from bench import money as money_figures
from bench import overload_run, results, table
from bench import restarts as restarts_of
from bench import screens as screens_of
from bench.delay import measure_delays
from bench.figures.overload import OverloadOptions
from bench.flame import Flames
from bench.progress import Progress
from bench.run_options import FULL, QUICK
from bench.runner import Run
from bench.specs import GROUPS
from bench.steps import Steps
from bench.systems import FIRST_PORT, ROOT

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__)


@app.command()
def run(
    quick: Annotated[
        bool, typer.Option("--quick", help="Shorter, without the stack and slow groups.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(GROUPS)}; repeatable.")] = None,
    stack: Annotated[
        bool | None, typer.Option("--stack/--no-stack", help="Whether to measure the stack too.")
    ] = None,
    stored: Annotated[
        int | None, typer.Option(min=2_000, help="Donations stored for the figure `growth`.")
    ] = None,
    flame: Annotated[
        bool, typer.Option("--flame", help="Flame graphs and CPU by library, with py-spy; it costs some CPU.")
    ] = False,
    note: Annotated[str, typer.Option(help="What else ran meanwhile, for the results' conditions.")] = "",
    out: Annotated[Path | None, typer.Option(help="The results file.")] = None,
) -> None:
    """Measure the figures, print the table, and write bench/results/latest.json (with --only: only.json)."""
    _end_on_sigterm()
    if unknown := [group for group in only or () if group not in GROUPS]:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(GROUPS)}", param_hint="--only")
    console = Console(stderr=True)
    options = QUICK if quick else FULL
    one = Run(
        only or (),
        replace(options, stored=stored or options.stored),
        Progress(console),
        with_stack=not quick if stack is None else stack,
        note=note,
        flames=Flames(flame),
    )
    file = out or (results.DIRECTORY / "only.json" if only else results.LATEST)
    try:
        found = one.measure()
    except (KeyboardInterrupt, SystemExit):
        # latest.json is only replaced by a run that ended.
        one.results.write(out or results.DIRECTORY / "interrupted.json")
        raise
    found.write(file)
    console.print()
    table.show(found.as_json(), Console())
    console.print(f"written to {file}", markup=False)


@app.command()
def attack(
    seed: Annotated[int, typer.Option(help="Another seed: other donors, cards and delays.")] = 1,
    out: Annotated[Path, typer.Option(help="The results file.")] = attack_figures.ATTACK,
) -> None:
    """Simulate a card-testing attack in a drive: what passes, and what it costs donors
    (docs/card-testing.md)."""
    attack_figures.run(seed, out)
    Console().print(f"written to {out}", markup=False)


@app.command()
def overload(
    times: Annotated[float, typer.Option(min=1, help="How many times the peak to send.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=2, help="Seconds of overload.")] = 20.0,
    peak_seconds: Annotated[float, typer.Option(min=1, help="Seconds of measuring the peak.")] = 8.0,
    stack: Annotated[bool, typer.Option("--stack/--no-stack", help="Overload the stack too.")] = True,
    note: Annotated[str, typer.Option(help="What else ran meanwhile, for the results' conditions.")] = "",
    out: Annotated[Path, typer.Option(help="The results file.")] = overload_run.FILE,
) -> None:
    """Send several times the peak, and report what was accepted, what gave way, and what came back."""
    _end_on_sigterm()
    options = OverloadOptions(times, seconds, peak_seconds)
    found = overload_run.run(options, Progress(Console(stderr=True)), with_stack=stack, note=note)
    found.write(out)
    table.show(found.as_json(), Console())
    typer.echo(f"written to {out}")


@app.command()
def delay(
    rate: Annotated[list[float], typer.Option(min=0, help="Donations a second; 0 is saturation.")],
    seconds: Annotated[float, typer.Option(min=4, max=600, help="Seconds at each rate.")] = 15.0,
    donors: Annotated[int, typer.Option(min=1, help="Donors in flight at saturation.")] = 64,
    stack: Annotated[bool, typer.Option("--stack", help="On Kafka and PostgreSQL.")] = False,
    checkout: Annotated[Path, typer.Option(help="The checkout to measure; by default this one.")] = ROOT,
    port_base: Annotated[int, typer.Option(min=1024, max=65000)] = FIRST_PORT,
) -> None:
    """Donate to a checkout's system at each rate in turn, and print a line of JSON for each."""
    _end_on_sigterm()
    measure_delays(rate, seconds, donors, stack=stack, checkout=checkout, port_base=port_base)


@app.command()
def restarts(
    count: Annotated[int, typer.Option(min=1, help="Rolling restarts of the gateway.")] = 20,
    viewers: Annotated[int, typer.Option(min=1, help="Clients of the live stream.")] = 2_000,
    rate: Annotated[float, typer.Option(min=0.1, help="Donations a second meanwhile.")] = 20.0,
    sends: Annotated[float, typer.Option(min=1, help="Each gateway's budget of sends a second.")] = 5_000.0,
    flame: Annotated[
        bool, typer.Option("--flame", help="Flame graphs and CPU by library, with py-spy; it costs some CPU.")
    ] = False,
    note: Annotated[str, typer.Option(help="What else ran meanwhile, for the results' conditions.")] = "",
    out: Annotated[Path, typer.Option(help="The results file.")] = results.DIRECTORY / "restarts.json",
) -> None:
    """Restart two gateways in turn under many viewers on the stack, and count the frames they missed."""
    _end_on_sigterm()
    load = restarts_of.Load(count, viewers, rate, sends)
    restarts_of.measure(load, out, note, Progress(Console(stderr=True)))
    _print_figures(out)


@app.command()
def drives(
    count: Annotated[int, typer.Option(min=2, help="Drives, one of which becomes viral.")] = 1_000,
    others: Annotated[float, typer.Option(min=0.1, help="Donations a second to the others.")] = 20.0,
    viral: Annotated[float, typer.Option(min=0.1, help="Donations a second to the viral one.")] = 40.0,
    seconds: Annotated[float, typer.Option(min=2, max=600, help="Seconds of each phase.")] = 15.0,
    rounds: Annotated[int, typer.Option(min=1, help="How often the two phases alternate.")] = 3,
    stack: Annotated[bool, typer.Option("--stack", help="On Kafka and PostgreSQL.")] = False,
    flame: Annotated[
        bool, typer.Option("--flame", help="Flame graphs and CPU by library, with py-spy; it costs some CPU.")
    ] = False,
    note: Annotated[str, typer.Option(help="What else ran meanwhile, for the results' conditions.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="The results file; by default bench/results/drives[_stack].json.")
    ] = None,
) -> None:
    """Measure how much later many drives' donations appear while one drive is viral."""
    _end_on_sigterm()
    file = out or results.DIRECTORY / f"drives{'_stack' if stack else ''}.json"
    load = drives_of.Load(count, others, viral, seconds, rounds)
    drives_of.measure(load, file, note, Progress(Console(stderr=True)), stack=stack)
    _print_figures(file)


@app.command()
def screens(
    gifts: Annotated[int, typer.Option(min=1_000, help="Gifts, and totals, that the overlay receives.")] = (
        screens_of.GIFTS
    ),
    note: Annotated[str, typer.Option(help="What else ran meanwhile, for the results' conditions.")] = "",
    out: Annotated[Path, typer.Option(help="The results file.")] = results.DIRECTORY / "screens.json",
) -> None:
    """Measure overlay and form in Chromium: first paint, bytes, frames, memory over twelve days."""
    _end_on_sigterm()
    screens_of.measure(out, note, Progress(Console(stderr=True)), gifts)
    _print_figures(out)


@app.command()
def money(
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of the drive's log.")] = 1_000_000,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Figures that are not measured by then are skipped.")
    ] = 20.0,
    note: Annotated[str, typer.Option(help="What else ran meanwhile, for the results' conditions.")] = "",
    out: Annotated[Path, typer.Option(help="The results file.")] = money_figures.MONEY,
) -> None:
    """Measure what a treasurer and an auditor wait for."""
    _end_on_sigterm()
    money_figures.run(rows, out, note, Steps(Console(stderr=True), minutes * 60))
    _print_figures(out)


@app.command()
def document() -> None:
    """Write the table of bench/results/latest.json into docs/performance.md."""
    table.document(results.read(results.LATEST))


def _print_figures(file: Path) -> None:
    Console().print_json(data=results.read(file)["figures"])


def _end_on_sigterm() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended


if __name__ == "__main__":
    app()
