"""The cost of a donation with many donations stored, against that with few (`stored_few` has how many)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from pathlib import Path
from typing import Final

import aiohttp

from bench import donation_run
from bench.donation_run import DonationRun, donate
from bench.event_loop import run_on_uvloop
from bench.figures.catchup import FilledDrive, open_drive_to_fill
from bench.results import Measured
from bench.row_copies import count_pledges, multiply
from bench.run_options import RunOptions
from bench.systems import ROOT, System, embedded_system, first_free_port
from rehearsal.api_client import new_session

FIRST_STORED: Final = 1_000
"""Before the warm-ups and rounds, which add to them."""
WARM_UP_S: Final = 20.0
"""After a start caches are empty and statements are compiled."""
AUDITED: Final = "ataa_ledger_audited_timestamp_seconds"
AUDITED_WITHIN_S: Final = 300.0
ROUNDS: Final = 2
"""Few and many are measured in turn: the machine's speed changes within minutes."""


def measure(data: Path, options: RunOptions) -> Measured:
    """`growth`: the embedded process's CPU a donation with many stored, as a multiple of that with few.

    Of each side the round that used the least counts.
    """
    small, large = data / "few", data / "many"
    small.mkdir()
    with embedded_system(ROOT, small, first_free_port()) as system:
        drive = run_on_uvloop(open_drive_to_fill(system))
        seeded = 0
        while seeded < FIRST_STORED:
            seeding = _donate(system, drive, options)
            seeded += len(seeding.delays_ms)
    shutil.copytree(small, large)
    stored = count_pledges(small)
    began = time.monotonic()
    many_stored = multiply(large, options.stored)
    copying_s = time.monotonic() - began
    rounds = [
        (_after_a_start(small, drive, options), _after_a_start(large, drive, options)) for _ in range(ROUNDS)
    ]
    few, many = (min(side, key=_cost_of) for side in zip(*rounds, strict=True))
    return Measured(
        "growth",
        _cost_of(many) / _cost_of(few),
        None,
        {
            "cpu_ms_a_donation_few": _cost_of(few),
            "cpu_ms_a_donation_many": _cost_of(many),
            **{f"round_{n}": _cost_of(two) / _cost_of(one) for n, (one, two) in enumerate(rounds, 1)},
            "stored_few": stored,
            "stored_many": many_stored,
            "donations_per_s_few": few.per_s,
            "donations_per_s_many": many.per_s,
            "copying_s": copying_s,
        },
    )


def _cost_of(run: DonationRun) -> float:
    return run.cpu_ms_a_donation("embedded")


def _after_a_start(data: Path, drive: FilledDrive, options: RunOptions) -> DonationRun:
    """Donations to a system that was started on `data` and has warmed up.

    What was written to the files before is on disk by then: the system's own writes would wait for it. At its
    start payments audits its whole ledger, and again a minute later at the earliest: neither is measured.
    """
    os.sync()
    with embedded_system(ROOT, data, first_free_port()) as system:
        run_on_uvloop(_audited(system))
        return _donate(system, drive, options, warm_up_s=WARM_UP_S)


async def _audited(system: System) -> None:
    """Wait until payments has audited its ledger. Raises TimeoutError after five minutes."""
    async with asyncio.timeout(AUDITED_WITHIN_S), new_session() as session:
        while True:
            if await _has_audited(session, system.metrics["embedded"]):
                return
            await asyncio.sleep(0.2)


async def _has_audited(session: aiohttp.ClientSession, metrics: str) -> bool:
    try:
        async with session.get(metrics) as response:
            found = re.search(rf"^{AUDITED} (\S+)", await response.text(), re.MULTILINE)
    except aiohttp.ClientConnectionError:  # it has only begun to start
        return False
    return found is not None and float(found[1]) > 0


def _donate(
    system: System, drive: FilledDrive, options: RunOptions, warm_up_s: float = donation_run.WARM_UP_S
) -> DonationRun:
    seconds, to = options.growth_s + warm_up_s, (drive.slug, drive.credentials)
    return run_on_uvloop(
        donate(system, 0.0, seconds, options.donors, warm_up_s=warm_up_s, settle=False, to=to)
    )
