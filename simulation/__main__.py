"""`python -m simulation --seed 4711` replays one seed; `--seeds 10000 --from 1` runs many."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from simulation.campaign import run_seeds

SHOWN: Final = 10
"""Failing seeds that are described; all are listed by their number."""

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, soft_wrap=True)


@cli.command()
def main(
    seed: Annotated[int | None, typer.Option(help="Replay this seed and print its trace.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run.")] = 10_000,
    first: Annotated[int, typer.Option("--from", min=0, help="The first seed.")] = 1,
    processes: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    planted: Annotated[str, typer.Option(help="Plant a bug: see simulation/planted.py.")] = "",
) -> None:
    """Simulate the embedded system on a virtual clock, with faults. Exits with 1 where a seed fails."""
    if seed is not None:
        sys.exit(asyncio.run(_replay(seed, planted)))
    sys.exit(asyncio.run(_campaign(range(first, first + seeds), processes or os.cpu_count() or 1, planted)))


async def _replay(seed: int, planted: str) -> int:
    async for verdict in run_seeds([seed], processes=1, planted_bug=planted, keep_trace=True):
        for line in verdict["lines"]:
            console.print(line, markup=False)
        _describe(verdict)
        return 1 if verdict["violations"] else 0
    return 2


async def _campaign(numbers: range, processes: int, planted: str) -> int:
    failed: list[dict[str, Any]] = []
    faults = crashes = 0
    virtual_s = 0.0
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("seeds", total=len(numbers))
        async for verdict in run_seeds(numbers, processes=processes, planted_bug=planted):
            faults += len(verdict["faults"])
            crashes += verdict["crashes"]
            virtual_s += verdict["virtual_s"]
            progress.advance(bar)
            if verdict["violations"]:
                failed.append(verdict)
                progress.update(bar, description=f"seeds ({len(failed)} failed)")
    took = time.monotonic() - began
    for verdict in failed[:SHOWN]:
        _describe(verdict)
    if failed:
        console.print(f"failed: {' '.join(str(verdict['seed']) for verdict in failed)}")
    console.print(
        f"{len(numbers)} seeds, {len(failed)} failed, in {took:.0f} s "
        f"({1000 * took / len(numbers):.0f} ms a seed on {processes} processes): "
        f"{faults} faults, {crashes} crashes, {virtual_s:.0f} s of virtual time"
    )
    return 1 if failed else 0


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
