"""A rehearsal on the running stack: busiest minutes, larger or faster, and how late Grafana shows them."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rehearsal import dashboard, report
from rehearsal.api_client import new_session
from rehearsal.console import Screen
from rehearsal.curve import Plan
from rehearsal.dashboard import Dashboard, DashboardReader
from rehearsal.demo import DemoRun, Options, supervised
from rehearsal.freshness import busiest_rate
from rehearsal.installation import CannotPrepare
from rehearsal.minutes import Replay, plan_of
from rehearsal.running_stack import RunningStack, find_running
from stack.layout import HOST, read_ports

DONATION_S: Final = 5.0
"""How long a donor is planned to be under way."""
MAX_DONORS: Final = 4_000
PEAK_WINDOW_S: Final = 10.0
LATE_S: Final = 1.0
"""Past this, donations waited for a free donor: the load was smaller than planned."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The options: what is replayed how, where Prometheus and Grafana are, and the report's file."""

    data_dir: Path
    replay: Replay
    recording: Path | None
    donors: int | None
    seed: int
    prometheus: str | None
    grafana: str
    report: Path


async def run_rehearsal(options: Rehearsal, screen: Screen) -> int:
    """Replay, prove and report; 0 when the proof holds and the dashboard answered, else 1.

    Raises installation.CannotPrepare, recording.BadRecording, api_client.NoAnswer, donors.Refused.
    """
    plan, seconds = plan_of(options.recording, options.replay, options.seed)
    installation = find_running(options.data_dir)
    if installation is None:
        raise CannotPrepare(f"no stack runs in {options.data_dir}; start one with make stack")
    processes = RunningStack(installation.directory)
    shown = dashboard.read()
    prometheus = options.prometheus or f"http://{HOST}:{read_ports(installation.directory)['prometheus']}"
    peak = peak_rate(plan)
    donors = options.donors or min(MAX_DONORS, max(16, round(peak * DONATION_S)))
    demo = Options(
        data_dir=options.data_dir,
        gateway_port=installation.gateway_port,
        sandbox_port=installation.sandbox_port,
        curve_s=seconds,
        rush_s=0.0,
        gifts=0,
        in_flight=donors,
        seed=options.seed,
        exits=True,
        stack="real",
        report=options.report,
    )
    options.report.unlink(missing_ok=True)
    screen.print_line(
        f"{len(plan.arrivals):,} donations in {seconds:,.0f} s, {peak:,.1f}/s in the busiest "
        f"{PEAK_WINDOW_S:.0f} s, {donors:,} donors at once"
    )
    started_at = time.time()
    for line in where_to_look(shown, options.grafana, prometheus, started_at):
        screen.print_line(line)
    async with new_session() as session:
        reader = DashboardReader(session, prometheus, shown)
        run = DemoRun(demo, plan, installation, session, processes, screen)
        reading = asyncio.create_task(reader.follow())
        try:
            code = await supervised(run, processes)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
    figures = reader.times.report()
    late_s = run.report["latest_start_s"]
    report.write(
        {
            **run.report,
            "planned": _planned(plan, options.replay, seconds, peak, donors),
            "dashboard": {"title": shown.title, "queries": len(shown.queries), **figures},
        },
        options.report,
    )
    for line in conclusions(figures, reader.times.reason, late_s):
        screen.print_line(line)
    return code if figures["refreshes"] else 1


def peak_rate(plan: Plan) -> float:
    """Planned donations a second in the busiest ten seconds."""
    return busiest_rate([arrival.at_s for arrival in plan.arrivals], PEAK_WINDOW_S)


def where_to_look(shown: Dashboard, grafana: str, prometheus: str, started_at: float) -> list[str]:
    """Which dashboard and which time range show the rehearsal while it runs."""
    begin = int(started_at * 1000) - 60_000
    return [
        f'Grafana: dashboard "{shown.title}", from a minute ago to now, every {shown.refresh_s:.0f} s:',
        f"  {grafana}/d/{shown.uid}?from={begin}&to=now&refresh={shown.refresh_s:.0f}s",
        "  Look at Freshness (which stage grows), Backlogs (must fall again) and CPU (a process near 100 %).",
        f"Without Grafana: {prometheus}. Its answers to the dashboard's queries are timed during the run.",
    ]


def conclusions(figures: Mapping[str, Any], reason: str, late_s: float) -> list[str]:
    """What the dashboard showed how late, and whether the load was as planned."""
    lines = []
    if figures["refreshes"]:
        load, behind = figures["load_ms"], figures["behind_ms"]
        lines.append(
            f"Dashboard: all panels answered in {load['p50']:,.0f} ms (longest {load['max']:,.0f} ms), "
            f"{figures['refreshes']} refreshes."
        )
        if behind["p50"] is not None:
            lines.append(
                f"The screen was {behind['p50'] / 1000:.1f} s behind the system "
                f"(longest {behind['max'] / 1000:.1f} s), and up to a refresh more."
            )
    if figures["failed"]:
        lines.append(f"{figures['failed']} refreshes failed: {reason}")
    if late_s > LATE_S:
        lines.append(
            f"Donations started up to {late_s:.1f} s late, because all donors were under way: the load was "
            "smaller than planned. The system is saturated, or --donors is too small."
        )
    return lines


def _planned(plan: Plan, replay: Replay, seconds: float, peak: float, donors: int) -> dict[str, Any]:
    return {
        "title": plan.title,
        "times": replay.times,
        "faster": replay.faster,
        "donations": len(plan.arrivals),
        "seconds": round(seconds, 1),
        "peak_per_s": round(peak, 1),
        "donors": donors,
    }
