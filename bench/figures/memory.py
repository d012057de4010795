"""Memory of each process in a surge to a drive with many donors on its board."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Sequence
from typing import Final

from bench.donation_run import donate
from bench.event_loop import run_on_uvloop
from bench.figures.catchup import FilledDrive
from bench.process_usage import memory_mb
from bench.results import Measured
from bench.run_options import RunOptions
from bench.systems import System

CAUGHT_UP_WITHIN_S: Final = 120.0
_LAG: Final = "ataa_consumer_lag_records{"
_PARTITIONS: Final = "ataa_consumer_partitions{"


class Behind(Exception):
    """A consumer did not catch up with the log that was filled."""


def measure(system: System, drive: FilledDrive, options: RunOptions) -> Measured:
    """`memory` or `memory_stack`: the largest of Ataa's processes after donations at saturation.

    They begin once every consumer has read the log that was filled. Raises Behind.
    """
    _wait_until_caught_up(system)
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


def _wait_until_caught_up(system: System) -> None:
    give_up = time.monotonic() + CAUGHT_UP_WITHIN_S
    while time.monotonic() < give_up:
        lines = [line for address in system.metrics.values() for line in _metrics(address)]
        # A group that has not joined yet knows of no lag.
        if all(_values(lines, _PARTITIONS)) and not any(_values(lines, _LAG)):
            return
        time.sleep(0.5)
    raise Behind(f"{sum(_values(lines, _LAG)):.0f} records are not handled after {CAUGHT_UP_WITHIN_S:.0f} s")


def _metrics(address: str) -> Sequence[str]:
    with urllib.request.urlopen(address, timeout=10) as response:  # noqa: S310 - our own http address
        text: str = response.read().decode()
    return text.splitlines()


def _values(lines: Sequence[str], name: str) -> list[float]:
    return [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)]
