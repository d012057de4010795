"""Memory of each process in a surge to a drive with many donors on its board."""

from __future__ import annotations

from bench.donation_run import donate
from bench.event_loop import run_on_uvloop
from bench.figures.catchup import FilledDrive
from bench.process_usage import memory_mb
from bench.results import Measured
from bench.run_options import RunOptions
from bench.systems import System


def measure(system: System, drive: FilledDrive, options: RunOptions) -> Measured:
    """`memory` or `memory_stack`: the largest of Ataa's processes after donations at saturation."""
    run = run_on_uvloop(
        donate(
            system,
            0.0,
            options.memory_s,
            options.donors,
            settle=False,
            to=(drive.slug, drive.credentials),
        )
    )
    held = {name: memory_mb(pid) for name, pid in system.own_processes.items()}
    name = "memory" if system.name == "embedded" else "memory_stack"
    details = {
        "donors_on_the_board": options.catchup_events,
        "donations_per_s": run.per_s,
        **{f"mb_{process}": mb for process, mb in sorted(held.items())},
    }
    return Measured(name, max(held.values()), None, details)
