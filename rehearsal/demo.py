"""The demo: starts the system in an empty directory, replays a drive, and proves the books."""

import asyncio
import contextlib
import json
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from rehearsal import recording, report
from rehearsal.api_client import ApiClient, NoAnswer, new_session
from rehearsal.console import Progress, Screen
from rehearsal.curve import Plan, winter
from rehearsal.donors import Donors, LoadProfile, Refused
from rehearsal.drive import open_drive
from rehearsal.freshness import Freshness, percentile
from rehearsal.gifts import GiftPlanner
from rehearsal.installation import Installation, prepare_installation
from rehearsal.live_stream import LiveStream
from rehearsal.proof import DRAIN_LIMIT_S, Auditor, Proof, Unreadable, settle
from rehearsal.supervisor import ProcessGroups, ProcessMonitor, Supervisor, embedded_processes

CURVE_SHARE: Final = 0.45
"""The share of donations on the curve: of 5,000, the 20 s rush then has to make 140 a second."""

_REFRESH_S: Final = 0.25
_LOG_POLL_S: Final = 1.0
_RATE_WINDOW_S: Final = 5.0
_FIRST_FRAME_S: Final = 10.0
_KEYS_S: Final = 5.0
_RETRY_REPORT_S: Final = 10.0
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of a demo: durations in seconds, and the minimum number of donations."""

    data_dir: Path
    gateway_port: int
    sandbox_port: int
    curve_s: float
    rush_s: float
    gifts: int
    in_flight: int
    seed: int
    exits: bool
    recording: Path | None = None
    faults: Mapping[str, Any] | None = None
    drain_limit_s: float = DRAIN_LIMIT_S
    stack: report.Stack = "embedded"
    report: Path = report.REPORT


def plan_of(options: Options) -> Plan:
    """The modelled drive, or the recording of the options. Raises recording.BadRecording."""
    gifts = max(10, round(options.gifts * CURVE_SHARE))
    if options.recording is None:
        return winter(gifts, options.curve_s, options.seed)
    minutes = recording.read(options.recording)
    return recording.replay(options.recording.name, minutes, gifts, options.curve_s, options.seed)


async def run_demo(
    options: Options,
    screen: Screen,
    embedded_processes: Callable[[Installation], ProcessGroups] = embedded_processes,
) -> int:
    """Run the whole demo; returns 0 when the proof holds, else 1.

    Raises installation.CannotPrepare, recording.BadRecording, supervisor.ProcessFailed,
    api_client.NoAnswer, donors.Refused.
    """
    plan = plan_of(options)
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for stop in _STOP_SIGNALS[1:]:
        loop.add_signal_handler(stop, main.cancel if main else loop.stop)
    report.REPORT.unlink(missing_ok=True)
    with prepare_installation(options.data_dir, options.gateway_port, options.sandbox_port) as installation:
        async with new_session() as session:
            screen.print_line(f"Starting Ataa and a Stripe sandbox in {installation.directory}")
            pids = installation.directory / "pids.json"
            async with Supervisor(embedded_processes(installation), pids, screen.print_line) as supervisor:
                return await supervised(
                    DemoRun(options, plan, installation, session, supervisor, screen), supervisor
                )


async def run_demo_on(
    installation: Installation, processes: ProcessMonitor, options: Options, screen: Screen
) -> int:
    """Run the demo on a running system, with a drive of its own; returns 0 when the proof holds, else 1.

    The books are compared as differences from the start, so no other client should donate meanwhile. Raises
    as `run_demo`.
    """
    plan = plan_of(options)
    report.REPORT.unlink(missing_ok=True)
    async with new_session() as session:
        return await supervised(DemoRun(options, plan, installation, session, processes, screen), processes)


async def supervised(demo: "DemoRun", supervisor: ProcessMonitor) -> int:
    """Run the demo while the supervisor keeps its processes running."""
    alive = asyncio.create_task(supervisor.keep_alive())
    running = asyncio.create_task(demo.run())
    try:
        await asyncio.wait((alive, running), return_when=asyncio.FIRST_COMPLETED)
        if alive.done():
            await alive
        return await running
    finally:
        for task in (running, alive):
            task.cancel()
        await asyncio.gather(running, alive, return_exceptions=True)


class DemoRun:
    """One run: opens the drive, runs the donors, follows the log, and writes proof and report."""

    def __init__(
        self,
        options: Options,
        plan: Plan,
        installation: Installation,
        session: aiohttp.ClientSession,
        supervisor: ProcessMonitor,
        screen: Screen,
    ) -> None:
        self._options = options
        self._plan = plan
        self._installation = installation
        self._session = session
        self._supervisor = supervisor
        self._screen = screen
        self._freshness = Freshness()
        self._stream = LiveStream(
            session, f"{installation.gateway_url}/v1/drives/{installation.drive}/live", self._freshness
        )
        self._auditor = Auditor(installation, session, self._freshness)
        self._api = ApiClient(session, installation.gateway_url)
        self._counts: deque[tuple[float, int]] = deque()
        self.report: dict[str, Any] = {}

    async def run(self) -> int:
        """Run the demo and write its report; then keep serving, unless `--exit` is set or it is shared."""
        await self._auditor.record_baseline()
        donors = await self._open()
        self._screen.print_line(f"Replaying {self._plan.title}. Watch it at {self._installation.overlay_url}")
        watching = asyncio.create_task(self._stream.follow())
        try:
            await self._wait_for_stream()
            started_at = time.time()
            with self._screen:
                await self._donate(donors)
                proof = await self._settle(donors)
            figures = report.measure(
                self._freshness,
                started_at,
                await self._last_totals(),
                self._supervisor.measure(),
                retries=self._api.retries,
                restarts=self._supervisor.restarts,
            )
        finally:
            await self._reset_faults()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        self.report = report.compose(figures, proof, self._options.stack)
        self.report["latest_start_s"] = round(donors.tally.latest_start_s, 3)
        report.write(self.report, self._options.report)
        self._screen.print_proof(
            proof, figures, donors.tally, self._options.stack, report=self._options.report
        )
        enough = len(donors.tally.paid) >= self._options.gifts
        if not enough:
            self._screen.print_line(
                f"Only {len(donors.tally.paid):,} of {self._options.gifts:,} donations were paid."
            )
        if not self._options.exits and not self._installation.shared:
            await self._stay()
        return 0 if proof.holds and proof.drained and enough else 1

    async def _open(self) -> Donors:
        if self._options.faults is not None:
            await ApiClient(self._session, self._installation.sandbox_url).post(
                "/_sandbox/faults", self._options.faults
            )
        run = f"demo-{int(time.time())}"
        credentials = await open_drive(self._api, await self._keys(), run, self._installation.drive)
        load = LoadProfile(self._options.rush_s, self._options.gifts, self._options.in_flight)
        self._planner = GiftPlanner(self._plan, self._options.seed, run)
        return Donors(self._api, self._installation.drive, credentials, load)

    async def _reset_faults(self) -> None:
        """Turn off the demo's faults where the sandbox keeps running after it."""
        if self._options.faults is not None and self._installation.shared:
            with contextlib.suppress(NoAnswer):
                await ApiClient(self._session, self._installation.sandbox_url).post("/_sandbox/faults", {})

    async def _keys(self) -> dict[str, str]:
        """Read keys.json; the publishable key is created through the API, a moment after the start."""
        file = self._installation.directory / "keys.json"
        give_up = time.monotonic() + _KEYS_S
        keys: dict[str, str] = {}
        while "publishable" not in keys and time.monotonic() < give_up:
            with contextlib.suppress(FileNotFoundError):
                keys = json.loads(file.read_text(encoding="utf-8"))
            await asyncio.sleep(0.05)
        if "admin" not in keys:
            raise Refused(f"{file} has no admin key after {_KEYS_S:.0f} s")
        return keys

    async def _wait_for_stream(self) -> None:
        """Wait for the stream's first totals, so that no measured delay includes our own connecting."""
        try:
            # Not wait_for: in Python 3.11 it loses a cancellation that coincides with the result.
            async with asyncio.timeout(_FIRST_FRAME_S):
                await self._stream.has_totals.wait()
        except TimeoutError:
            self._screen.print_line("The live stream has sent no totals yet; starting without it.")

    async def _donate(self, donors: Donors) -> None:
        donating = asyncio.create_task(donors.donate_all(self._plan, self._planner))
        following = asyncio.create_task(self._follow_log())
        started = reported_at = time.monotonic()
        reported = self._api.retries
        try:
            while not donating.done():
                if self._api.retries > reported and time.monotonic() - reported_at >= _RETRY_REPORT_S:
                    more = self._api.retries - reported
                    self._screen.print_line(
                        f"{more} requests retried; the last failure: {self._api.last_failure}"
                    )
                    reported, reported_at = self._api.retries, time.monotonic()
                self._screen.show(self._progress(donors, time.monotonic() - started))
                await asyncio.wait((donating,), timeout=_REFRESH_S)
            await donating
        finally:
            for task in (donating, following):
                task.cancel()
            await asyncio.gather(donating, following, return_exceptions=True)

    async def _follow_log(self) -> None:
        """Read the log and the deliveries as they grow, so that freshness can be shown during the run."""
        while True:
            # A service that is being restarted is read again a second later.
            with contextlib.suppress(Unreadable):
                await self._auditor.read_new()
            await asyncio.sleep(_LOG_POLL_S)

    async def _settle(self, donors: Donors) -> Proof:
        async def waiting(what: str) -> None:
            progress = self._progress(donors, self._options.curve_s + self._options.rush_s)
            self._screen.show(Progress(f"waiting for {what}", 1.0, *_shown(progress), eta_s=0.0))

        return await settle(
            self._auditor, donors.tally, self._freshness, waiting, self._options.drain_limit_s
        )

    def _progress(self, donors: Donors, elapsed_s: float) -> Progress:
        options, totals = self._options, self._stream.totals
        planned_s = options.curve_s + options.rush_s
        per_s = self._rate(int(totals.get("donations", 0)))
        remaining = max(0, options.gifts - len(donors.tally.paid))
        rushing = elapsed_s > options.curve_s
        eta_s = max(0.0, planned_s - elapsed_s, remaining / per_s if rushing and per_s else 0.0)
        recent = self._freshness.delays_ms(since=time.time() - _RATE_WINDOW_S)
        last = elapsed_s >= planned_s and not remaining
        rush = "waiting for the last donors" if last else "at full speed"
        return Progress(
            phase=rush if rushing else "the drive's curve",
            done=elapsed_s / (elapsed_s + eta_s) if elapsed_s else 0.0,
            raised=str(totals.get("raised", {}).get("value", "0.00")),
            donations=int(totals.get("donations", 0)),
            per_s=per_s,
            freshness_ms=percentile(recent, 0.5),
            eta_s=eta_s,
        )

    def _rate(self, donations: int) -> float:
        """Donations shown per second, over the last few seconds."""
        now = time.monotonic()
        self._counts.append((now, donations))
        while now - self._counts[0][0] > _RATE_WINDOW_S:
            self._counts.popleft()
        then, before = self._counts[0]
        return max(0.0, (donations - before) / (now - then)) if now > then else 0.0

    async def _last_totals(self) -> Mapping[str, Any]:
        """The drive's totals after the run; those of the newest frame if the API does not answer."""
        try:
            reply = await self._api.get(f"/v1/drives/{self._installation.drive}/totals")
        except NoAnswer:
            return self._stream.totals
        return reply.body if reply.status == 200 else self._stream.totals

    async def _stay(self) -> None:
        """Keep serving, so that the pages can be viewed, until a stop signal."""
        stopped = asyncio.Event()
        for stop in _STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(stop, stopped.set)
        self._screen.print_line(f"Still serving {self._installation.overlay_url}. Ctrl-C stops it.")
        await stopped.wait()


def _shown(progress: Progress) -> tuple[str, int, float, float | None]:
    return progress.raised, progress.donations, progress.per_s, progress.freshness_ms
