"""`make simulate`: many seeds, the replay of one with its trace, or the search for a planted bug."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulation.campaign import Bug, run_seeds

SHOWN: Final = 10
"""Failing seeds that are described; all are listed by their number."""
SEEDS: Final = 10_000
SEEDS_TO_FIND_A_BUG: Final = 1_000

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, soft_wrap=True)


@cli.command()
def main(
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help=f"How many seeds to run: {SEEDS}, or {SEEDS_TO_FIND_A_BUG} with --planted."),
    ] = None,
    first: Annotated[int, typer.Option("--from", min=0, help="The first of them.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Replay this one seed and print its trace.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one a core.")] = 0,
    planted: Annotated[
        Bug | None,
        typer.Option(help="Plant this bug and run until a seed finds it; exits with 1 where none does."),
    ] = None,
) -> None:
    """Simulate the embedded system on a virtual clock, with faults. Exits with 1 where a seed fails.

    A seed decides about everything: the donors, the faults, all timing. Running it again repeats the run.
    """
    jobs = jobs or os.cpu_count() or 1
    if seed is not None:
        sys.exit(asyncio.run(_replay(seed, planted)))
    if planted is not None:
        numbers = range(first, first + (seeds or SEEDS_TO_FIND_A_BUG))
        sys.exit(asyncio.run(_find(numbers, jobs, planted)))
    sys.exit(asyncio.run(_campaign(range(first, first + (seeds or SEEDS)), jobs)))


async def _replay(seed: int, bug: Bug | None) -> int:
    async for verdict in run_seeds([seed], jobs=1, bug=bug, keep_trace=True):
        for line in verdict["lines"]:
            console.print(line, markup=False)
        _describe(verdict)
        return 1 if verdict["violations"] else 0
    return 2


async def _find(numbers: Sequence[int], jobs: int, bug: Bug) -> int:
    """Run seeds with a planted bug until one fails."""
    began = time.monotonic()
    tried = 0
    with _progress() as progress:
        bar = progress.add_task(bug.value, total=len(numbers))
        async with aclosing(run_seeds(numbers, jobs=jobs, bug=bug)) as verdicts:
            async for verdict in verdicts:
                tried += 1
                progress.advance(bar)
                if verdict["violations"]:
                    break
            else:
                console.print(f"{bug.value}: not found in {tried} seeds")
                return 1
    _describe(verdict)
    console.print(f"{bug.value}: found by seed {verdict['seed']}, in {time.monotonic() - began:.0f} s")
    console.print(f'replay: make simulate ARGS="--planted {bug.value} --seed {verdict["seed"]}"')
    return 0


async def _campaign(numbers: Sequence[int], jobs: int) -> int:
    """Run all seeds, whether or not some fail."""
    failed: list[dict[str, Any]] = []
    faults = crashes = 0
    virtual_s = 0.0
    began = time.monotonic()
    with _progress() as progress:
        bar = progress.add_task("seeds", total=len(numbers))
        async for verdict in run_seeds(numbers, jobs=jobs):
            faults += len(verdict["faults"])
            crashes += verdict["crashes"]
            virtual_s += verdict["virtual_s"]
            progress.advance(bar)
            if verdict["violations"]:
                failed.append(verdict)
                progress.update(bar, description=f"seeds ({len(failed)} failed)")
    took = time.monotonic() - began
    failed.sort(key=lambda verdict: int(verdict["seed"]))
    for verdict in failed[:SHOWN]:
        _describe(verdict)
    if failed:
        console.print(f"failed: {' '.join(str(verdict['seed']) for verdict in failed)}")
        console.print(f'replay: make simulate ARGS="--seed {failed[0]["seed"]}"')
    console.print(
        f"{len(numbers)} seeds, {len(failed)} failed, in {took:.0f} s on {jobs} processes: "
        f"{faults} faults, {crashes} crashes, {virtual_s:.0f} s of virtual time"
    )
    return 1 if failed else 0


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)


def _describe(verdict: dict[str, Any]) -> None:
    result = "failed" if verdict["violations"] else "holds"
    console.print(
        f"seed {verdict['seed']} {result}: trace {verdict['digest']}, {verdict['virtual_s']} s of virtual "
        f"time, {verdict['crashes']} crashes, {len(verdict['faults'])} faults"
    )
    for violation in verdict["violations"]:
        console.print(f"  {violation}", markup=False)


if __name__ == "__main__":
    cli()
