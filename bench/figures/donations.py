"""Whole donations a second at saturation; the books agree to the cent afterwards."""

from __future__ import annotations

import time

from bench import child
from bench.donation_run import GENERATOR, SEED, DonationRun, donate
from bench.event_loop import run_on_uvloop
from bench.flame import Flames, shares
from bench.results import Measured
from bench.run_options import RunOptions
from bench.systems import System
from rehearsal.api_client import ApiClient, new_session
from rehearsal.curve import Plan, gift_size
from rehearsal.donors import Credentials, Donors, LoadProfile
from rehearsal.gifts import GiftPlanner


def measure(
    system: System, options: RunOptions, floor: float, flames: Flames
) -> tuple[Measured, DonationRun]:
    """`donations` or `donations_stack`, and the run, whose drive has donations then."""
    name = "donations" if system.name == "embedded" else "donations_stack"
    with flames.of(name, system.own_processes) as libraries:
        run = run_on_uvloop(donate(system, 0.0, options.donations_s, options.donors))
    details = {
        "p50_ms": run.delay_ms(0.5),
        "p99_ms": run.delay_ms(0.99),
        "difference": run.difference,
        "errors": run.errors,
        "seconds": run.seconds,
        "donors_in_flight": options.donors,
        "cpu_ms_a_donation": run.cpu_ms_a_donation(),
        **{f"cpu_ms_{process}": run.cpu_ms_a_donation(process) for process in sorted(run.cores)},
        "cpu_by_library": f"skipped: {flames.skipped}" if flames.skipped else "of each process's samples",
        **{f"cpu_by_library_{process}": shares(found) for process, found in sorted(libraries.items())},
        **{f"cores_{process}": cores for process, cores in sorted(run.cores.items()) if cores >= 0.005},
        "generator_cores": run.cores[GENERATOR],
        "generator_share": run.generator_share,
    }
    return Measured(name, run.per_s, floor, details), run


def measure_floor(options: RunOptions) -> float:
    """Donations a second of the same donors, whose requests are answered at once without any work."""
    with child.running("bench.floors", "donations") as server:
        return run_on_uvloop(_give(f"http://127.0.0.1:{server.port}", options.donors, options.floor_s))


async def _give(url: str, donors: int, seconds: float) -> float:
    plan = Plan("floor", (), gift_size, frozenset())
    credentials = Credentials("sk_live_none", None, url)
    async with new_session() as session:
        load = LoadProfile(seconds, 0, donors)
        # Refunds give up at once: nobody records the payments they would wait for.
        givers = Donors(ApiClient(session, url), "floor", credentials, load, paid_within_s=0.0)
        began = time.perf_counter()
        await givers.donate_all(plan, GiftPlanner(plan, SEED, "floor"))
        return (givers.tally.pledged - givers.tally.abandoned) / (time.perf_counter() - began)
