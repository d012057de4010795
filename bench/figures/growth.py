"""The cost of a donation with many donations stored, against that with about a thousand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from bench.donation_run import DonationRun, donate
from bench.event_loop import run_on_uvloop
from bench.figures.catchup import FilledDrive, open_drive_to_fill
from bench.results import Measured
from bench.row_copies import multiply
from bench.run_options import RunOptions
from bench.systems import ROOT, System, embedded_system, first_free_port

FIRST_STORED: Final = 1_000


def measure(data: Path, options: RunOptions) -> Measured:
    """`growth`: the embedded process's CPU a donation, before and after its rows are multiplied."""
    with embedded_system(ROOT, data, first_free_port()) as system:
        drive = run_on_uvloop(open_drive_to_fill(system))
        stored = 0
        while stored < FIRST_STORED:
            seeding = _donate(system, drive, options)
            stored += len(seeding.delays_ms)
        few = _donate(system, drive, options)
    began = time.monotonic()
    many_stored = multiply(data, options.stored)
    copying_s = time.monotonic() - began
    with embedded_system(ROOT, data, first_free_port()) as system:
        many = _donate(system, drive, options)
    before, after = few.cpu_ms_a_donation("embedded"), many.cpu_ms_a_donation("embedded")
    return Measured(
        "growth",
        after / before,
        None,
        {
            "cpu_ms_a_donation_few": before,
            "cpu_ms_a_donation_many": after,
            "stored_few": stored,
            "stored_many": many_stored,
            "donations_per_s_few": few.per_s,
            "donations_per_s_many": many.per_s,
            "copying_s": copying_s,
        },
    )


def _donate(system: System, drive: FilledDrive, options: RunOptions) -> DonationRun:
    to = (drive.slug, drive.credentials)
    return run_on_uvloop(donate(system, 0.0, options.growth_s, options.donors, settle=False, to=to))
