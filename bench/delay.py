"""`python -m bench delay`: card to screen at fixed rates, with each process's CPU, as JSON.

It starts the checkout it is pointed at, so that two versions can be compared by one bench on one machine:

    python -m bench delay --rate 1 --rate 16 --rate 40
    python -m bench delay --checkout ../before --rate 1 --rate 16 --rate 40
    python -m bench delay --stack --rate 1 --rate 16
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from bench.donation_run import GENERATOR, DonationRun, donate
from bench.event_loop import run_on_uvloop
from bench.machine import describe_commit
from bench.systems import embedded_system, stack_system


def measure_delays(
    rates: Sequence[float], seconds: float, donors: int, *, stack: bool, checkout: Path, port_base: int
) -> None:
    """Start the system in an empty directory, give at each rate in turn, print a line of JSON for each."""
    with tempfile.TemporaryDirectory(prefix="ataa-bench-") as directory:
        data, home = Path(directory), checkout.resolve()
        start = stack_system if stack else embedded_system
        with start(home, data, port_base) as system:
            for rate in rates:
                run = run_on_uvloop(donate(system, rate, seconds, donors, settle=False))
                figures = {"stack": stack, "commit": describe_commit(home), "rate": rate, **as_json(run)}
                typer.echo(json.dumps(figures))


def as_json(run: DonationRun) -> dict[str, Any]:
    """The figures of a run, rounded."""
    delays = run.delays_ms
    return {
        "paid_per_s": round(run.per_s, 1),
        "mean_ms": _rounded(sum(delays) / len(delays) if delays else None),
        "p50_ms": _rounded(run.delay_ms(0.5)),
        "p90_ms": _rounded(run.delay_ms(0.9)),
        "p99_ms": _rounded(run.delay_ms(0.99)),
        "gifts": len(delays),
        "frames_per_s": round(run.frames_per_s, 1),
        "stages_ms": run.stages_ms,
        "stages_sum_ms": round(sum(run.stages_ms.values()), 1),
        "cores": round(sum(run.cores.values()), 3),
        "cpu": {name: round(share, 3) for name, share in sorted(run.cores.items())},
        "generator_share": round(run.cores[GENERATOR] / (sum(run.cores.values()) or 1.0), 3),
        "errors": run.errors,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
