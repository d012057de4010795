"""One demo from the empty directory to the proof: what `python -m rehearsal demo` does."""

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
from rehearsal.console import Moment, Screen
from rehearsal.curve import Plan, winter
from rehearsal.donors import Donors, Pace, Refused
from rehearsal.door import Door, NoAnswer, new_session
from rehearsal.freshness import Freshness, percentile
from rehearsal.gifts import Crowd
from rehearsal.opening import open_drive
from rehearsal.proof import QUIET_LIMIT_S, Auditor, Proof, Unreadable, settle
from rehearsal.stage import Stage, set_stage
from rehearsal.supervise import Cast, Supervised, Supervisor, troupe_of
from rehearsal.watch import Watch

CURVE_SHARE: Final = 0.45
"""How many of the gifts arrive on the curve: 5,000 then need the rush to reach 140/s in its 20 s."""

_REFRESH_S: Final = 0.25
_EVIDENCE_S: Final = 1.0
_RATE_WINDOW_S: Final = 5.0
_FIRST_SIGHT_S: Final = 10.0
_KEYS_S: Final = 5.0
_TELL_S: Final = 10.0
_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Options:
    """A demo's settings: seconds of curve, rush and waiting for rest; at least how many gifts."""

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
    quiet_s: float = QUIET_LIMIT_S
    stack: report.Stack = "embedded"


def plan_of(options: Options) -> Plan:
    """The synthesised drive, or the recording asked for. Raises recording.BadRecording."""
    gifts = max(10, round(options.gifts * CURVE_SHARE))
    if options.recording is None:
        return winter(gifts, options.curve_s, options.seed)
    minutes = recording.read(options.recording)
    return recording.replay(options.recording.name, minutes, gifts, options.curve_s, options.seed)


async def perform(options: Options, screen: Screen, troupe_of: Callable[[Stage], Cast] = troupe_of) -> int:
    """Run it all; 0 when the proof holds, 1 when not.

    Raises stage.CannotStage, recording.BadRecording, supervise.CannotRun, door.NoAnswer, donors.Refused.
    """
    plan = plan_of(options)
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for stop in _STOPS[1:]:
        loop.add_signal_handler(stop, main.cancel if main else loop.stop)
    report.REPORT.unlink(missing_ok=True)
    with set_stage(options.data_dir, options.gateway_port, options.sandbox_port) as stage:
        async with new_session() as session:
            screen.say(f"Starting Ataa and a Stripe sandbox in {stage.directory}")
            pids = stage.directory / "pids.json"
            async with Supervisor(troupe_of(stage), pids, session, screen.say) as supervisor:
                return await _supervised(Show(options, plan, stage, session, supervisor, screen), supervisor)


async def perform_on(stage: Stage, processes: Supervised, options: Options, screen: Screen) -> int:
    """Play on a system that runs already, with a drive of its own; 0 when the proof holds, 1 when not.

    The books are read as differences from the start, so nobody else should give meanwhile. Raises as
    `perform`.
    """
    plan = plan_of(options)
    report.REPORT.unlink(missing_ok=True)
    async with new_session() as session:
        return await _supervised(Show(options, plan, stage, session, processes, screen), processes)


async def _supervised(show: "Show", supervisor: Supervised) -> int:
    """The show, for as long as its processes can be kept alive."""
    alive = asyncio.create_task(supervisor.keep_alive())
    acted = asyncio.create_task(show.run())
    try:
        await asyncio.wait((alive, acted), return_when=asyncio.FIRST_COMPLETED)
        if alive.done():
            await alive
        return await acted
    finally:
        for task in (acted, alive):
            task.cancel()
        await asyncio.gather(acted, alive, return_exceptions=True)


class Show:
    """The rehearsal itself: opening, donors, evidence, proof and report."""

    def __init__(
        self,
        options: Options,
        plan: Plan,
        stage: Stage,
        session: aiohttp.ClientSession,
        supervisor: Supervised,
        screen: Screen,
    ) -> None:
        self._options = options
        self._plan = plan
        self._stage = stage
        self._session = session
        self._supervisor = supervisor
        self._screen = screen
        self._freshness = Freshness()
        self._watch = Watch(session, f"{stage.gateway_url}/v1/drives/{stage.drive}/live", self._freshness)
        self._auditor = Auditor(stage, session, self._freshness)
        self._door = Door(session, stage.gateway_url)
        self._counts: deque[tuple[float, int]] = deque()

    async def run(self) -> int:
        """Perform, prove, report; then stay up unless told to exit, or the system is not the demo's own."""
        await self._auditor.begin()
        donors = await self._open()
        self._screen.say(f"Replaying {self._plan.title}. Open {self._stage.overlay_url} meanwhile.")
        watching = asyncio.create_task(self._watch.follow())
        try:
            await self._first_sight()
            started_at = time.time()
            with self._screen:
                await self._give(donors)
                proof = await self._settle(donors)
            figures = report.measure(
                self._freshness,
                started_at,
                await self._last_totals(),
                self._supervisor.measure(),
                retries=self._door.retries,
                restarts=self._supervisor.restarts,
            )
        finally:
            await self._reset_faults()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        report.write(report.compose(figures, proof, self._options.stack))
        self._screen.prove(proof, figures, donors.tally, self._options.stack)
        enough = len(donors.tally.paid) >= self._options.gifts
        if not enough:
            self._screen.say(f"Only {len(donors.tally.paid):,} of {self._options.gifts:,} gifts were paid.")
        if not self._options.exits and not self._stage.shared:
            await self._stay()
        return 0 if proof.holds and proof.quiet and enough else 1

    async def _open(self) -> Donors:
        if self._options.faults is not None:
            await Door(self._session, self._stage.sandbox_url).post("/_sandbox/faults", self._options.faults)
        run = f"demo-{int(time.time())}"
        entry = await open_drive(self._door, await self._keys(), run, self._stage.drive)
        pace = Pace(self._options.rush_s, self._options.gifts, self._options.in_flight)
        self._crowd = Crowd(self._plan, self._options.seed, run)
        return Donors(self._door, self._stage.drive, entry, pace)

    async def _reset_faults(self) -> None:
        """A sandbox that goes on without the demo is left without the demo's faults."""
        if self._options.faults is not None and self._stage.shared:
            with contextlib.suppress(NoAnswer):
                await Door(self._session, self._stage.sandbox_url).post("/_sandbox/faults", {})

    async def _keys(self) -> dict[str, str]:
        """The embedded run's keys; the publishable one is made through the open door, so a moment later."""
        file = self._stage.directory / "keys.json"
        give_up = time.monotonic() + _KEYS_S
        keys: dict[str, str] = {}
        while "publishable" not in keys and time.monotonic() < give_up:
            with contextlib.suppress(FileNotFoundError):
                keys = json.loads(file.read_text(encoding="utf-8"))
            await asyncio.sleep(0.05)
        if "admin" not in keys:
            raise Refused(f"{file} names no admin key after {_KEYS_S:.0f} s")
        return keys

    async def _first_sight(self) -> None:
        """The stream is open before the first gift: no gift's age may hold our own connecting."""
        try:
            # Not wait_for: Python 3.11's forgets a cancellation that comes together with the result.
            async with asyncio.timeout(_FIRST_SIGHT_S):
                await self._watch.seeing.wait()
        except TimeoutError:
            self._screen.say("The live stream shows nothing yet; starting without it.")

    async def _give(self, donors: Donors) -> None:
        giving = asyncio.create_task(donors.give_all(self._plan, self._crowd))
        gathering = asyncio.create_task(self._gather_evidence())
        started = told_at = time.monotonic()
        told = self._door.retries
        try:
            while not giving.done():
                if self._door.retries > told and time.monotonic() - told_at >= _TELL_S:
                    more = self._door.retries - told
                    self._screen.say(f"{more} tries repeated, the last: {self._door.last_failure}")
                    told, told_at = self._door.retries, time.monotonic()
                self._screen.show(self._moment(donors, time.monotonic() - started))
                await asyncio.wait((giving,), timeout=_REFRESH_S)
            await giving
        finally:
            for task in (giving, gathering):
                task.cancel()
            await asyncio.gather(giving, gathering, return_exceptions=True)

    async def _gather_evidence(self) -> None:
        """Keep up with the log and the deliveries, so that freshness can be shown while it runs."""
        while True:
            # A system that is just being restarted is asked again a second later.
            with contextlib.suppress(Unreadable):
                await self._auditor.read_on()
            await asyncio.sleep(_EVIDENCE_S)

    async def _settle(self, donors: Donors) -> Proof:
        async def waiting(what: str) -> None:
            moment = self._moment(donors, self._options.curve_s + self._options.rush_s)
            self._screen.show(Moment(f"waiting for {what}", 1.0, *_shown(moment), eta_s=0.0))

        return await settle(self._auditor, donors.tally, self._freshness, waiting, self._options.quiet_s)

    def _moment(self, donors: Donors, elapsed_s: float) -> Moment:
        options, totals = self._options, self._watch.totals
        planned_s = options.curve_s + options.rush_s
        per_s = self._rate(int(totals.get("donations", 0)))
        missing = max(0, options.gifts - len(donors.tally.paid))
        rushing = elapsed_s > options.curve_s
        eta_s = max(0.0, planned_s - elapsed_s, missing / per_s if rushing and per_s else 0.0)
        recent = self._freshness.delays_ms(since=time.time() - _RATE_WINDOW_S)
        last = elapsed_s >= planned_s and not missing
        rush = "waiting for the last donors" if last else "as fast as it goes"
        return Moment(
            phase=rush if rushing else "the drive's curve",
            done=elapsed_s / (elapsed_s + eta_s) if elapsed_s else 0.0,
            raised=str(totals.get("raised", {}).get("value", "0.00")),
            donations=int(totals.get("donations", 0)),
            per_s=per_s,
            freshness_ms=percentile(recent, 0.5),
            eta_s=eta_s,
        )

    def _rate(self, donations: int) -> float:
        """Donations a second on screen, over the last few seconds."""
        now = time.monotonic()
        self._counts.append((now, donations))
        while now - self._counts[0][0] > _RATE_WINDOW_S:
            self._counts.popleft()
        then, before = self._counts[0]
        return max(0.0, (donations - before) / (now - then)) if now > then else 0.0

    async def _last_totals(self) -> Mapping[str, Any]:
        """The page's figures now that all is quiet; the newest frame's if the door does not answer."""
        try:
            reply = await self._door.get(f"/v1/drives/{self._stage.drive}/totals")
        except NoAnswer:
            return self._watch.totals
        return reply.body if reply.status == 200 else self._watch.totals

    async def _stay(self) -> None:
        """Stay up, so that the pages can be looked at, until someone ends it."""
        asked = asyncio.Event()
        for stop in _STOPS:
            asyncio.get_running_loop().add_signal_handler(stop, asked.set)
        self._screen.say(f"Still serving {self._stage.overlay_url}. Ctrl-C ends it.")
        await asked.wait()


def _shown(moment: Moment) -> tuple[str, int, float, float | None]:
    return moment.raised, moment.donations, moment.per_s, moment.freshness_ms
