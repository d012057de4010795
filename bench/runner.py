"""Runs the groups of figures, each on the system it needs, and collects results and reasons."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import child
from bench.donation_run import donate
from bench.event_loop import run_on_uvloop
from bench.figures import catchup, donations, fanout, freshness, growth, intake, memory, reads
from bench.figures.catchup import FilledDrive
from bench.flame import Flames
from bench.http_load import LoadReport
from bench.machine import describe_commit, describe_machine, load_average
from bench.progress import Progress
from bench.results import Detail, Measured, Results
from bench.run_options import NOT_QUICK, RunOptions
from bench.specs import GROUPS, SPECS, names_of
from bench.systems import ROOT, System, embedded_system, first_free_port, stack_system

SEEDING_S: Final = 4.0
STACK: Final = "_stack"
ON_EMBEDDED: Final = ("donations", "freshness", "intake")
ON_GATEWAY: Final = ("reads", "fanout")
ON_FILLED: Final = ("catchup", "memory")
SLOW: Final = ("catchup", "growth", "memory")
"""Groups that a quick run leaves out, unless they are named."""


class Run:
    """One run: the `asked` groups, or all, with `options`, on the systems of this checkout."""

    def __init__(
        self,
        asked: Collection[str],
        options: RunOptions,
        progress: Progress,
        *,
        with_stack: bool,
        note: str,
        flames: Flames,
    ) -> None:
        self._groups = asked or [one for one in GROUPS if options.mode == "full" or one not in SLOW]
        self._options = options
        self._progress = progress
        self._with_stack = with_stack
        self._flames = flames
        self._drive = ""
        self._filled: FilledDrive | None = None
        self._donations_floor: float | None = None
        self._intake_floor: LoadReport | None = None
        conditions: dict[str, Detail] = {
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "load_average_before": round(load_average(), 2),
        }
        if note:
            conditions["note"] = note
        self.results = Results(describe_machine(), describe_commit(ROOT), options.mode, conditions)

    def measure(self) -> Results:
        """Measure all groups; a figure that fails is skipped with its reason."""
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="ataa-bench-", ignore_cleanup_errors=True) as directory:
            data = Path(directory)
            self._measure_embedded(data)
            self._measure_gateway(data)
            self._measure_filled_embedded(data)
        self._measure_stack()
        self._measure_growth()
        for name, spec in SPECS.items():
            measured = spec.group in self._groups
            self.results.skip(name, "not measured" if measured else f"{spec.group} is not in this run")
        self.results.conditions["load_average_after"] = round(load_average(), 2)
        self.results.conditions["seconds"] = round(time.monotonic() - began)
        return self.results

    def _names(self, *groups: str) -> list[str]:
        """The figures of those of `groups` that are wanted."""
        return names_of(group for group in groups if group in self._groups)

    def _wants(self, *groups: str) -> bool:
        return any(group in self._groups for group in groups)

    @contextmanager
    def _skipping(self, names: Collection[str]) -> Iterator[None]:
        """Skip `names` where the block fails; a failure is a result here, and the others go on."""
        try:
            yield
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self._progress.failed(reason)
            for name in names:
                self.results.skip(name, reason)

    def _add(self, measured: Measured) -> None:
        self.results.add(measured)
        self._progress.measured(measured)

    def _measure_embedded(self, data: Path) -> None:
        groups = (*ON_EMBEDDED, *ON_GATEWAY, *ON_FILLED)
        if not self._wants(*groups):
            return
        names = [name for name in self._names(*groups) if not name.endswith(STACK)]
        with self._skipping(names), self._started("embedded", data) as system:
            if self._wants("freshness"):
                self._measure_freshness(system)  # first: after a saturation receipts are still being sent
            if self._wants("donations"):
                self._measure_donations(system)
            elif self._wants(*ON_GATEWAY):
                self._progress.begin("some donations, so that there is something to read")
                seeding = donate(system, 0.0, SEEDING_S, 32, warm_up_s=1.0, settle=False)
                self._drive = run_on_uvloop(seeding).drive
            if self._wants("intake") and not self._wants("memory"):
                self._measure_intake(system)
            if self._wants(*ON_FILLED):
                self._filled = run_on_uvloop(catchup.open_drive_to_fill(system))

    def _measure_stack(self) -> None:
        names = [name for name in self._names(*self._groups) if name.endswith(STACK)]
        if not names:
            return
        if not self._with_stack:
            for name in names:
                self.results.skip(name, NOT_QUICK)
            return
        with (
            tempfile.TemporaryDirectory(prefix="ataa-bench-", ignore_cleanup_errors=True) as directory,
            self._skipping(names),
            self._started("stack", Path(directory)) as system,
        ):
            if self._wants("freshness"):
                self._measure_freshness(system)
            if self._wants("donations"):
                self._measure_donations(system)
            if self._wants(*ON_FILLED):
                with self._skipping([f"catchup{STACK}", f"memory{STACK}"]):
                    self._measure_filled_stack(system)
            if self._wants("intake"):
                self._measure_intake(system)  # last: its pledges are still being worked on afterwards

    def _measure_filled_stack(self, system: System) -> None:
        drive = run_on_uvloop(catchup.open_drive_to_fill(system))
        self._progress.begin(f"leaderboard from a log of {self._options.catchup_events:,} events, stack")
        measured = catchup.measure_stack(system, drive, self._options.catchup_events)
        if self._wants("catchup"):
            self._add(measured)
        if self._wants("memory"):
            self._measure_memory(system, drive)

    def _measure_filled_embedded(self, data: Path) -> None:
        if not self._wants(*ON_FILLED) or self._filled is None:
            return
        measured_here = (*ON_FILLED, "intake") if self._wants("memory") else ON_FILLED
        with self._skipping([name for name in self._names(*measured_here) if not name.endswith(STACK)]):
            events = self._options.catchup_events
            self._progress.begin(f"leaderboard from a log of {events:,} events, embedded")
            measured = catchup.measure_embedded(data, self._filled, events, self._flames)
            if self._wants("catchup"):
                self._add(measured)
            if self._wants("memory"):
                with self._started("embedded", data) as system:
                    with self._skipping(["memory"]):
                        self._measure_memory(system, self._filled)
                    if self._wants("intake"):
                        self._measure_intake(system)  # last: its pledges are still being worked on afterwards

    def _measure_memory(self, system: System, drive: FilledDrive) -> None:
        self._progress.begin(f"memory in a surge, {system.name}", self._options.memory_s)
        self._add(memory.measure(system, drive, self._options))

    def _measure_growth(self) -> None:
        if not self._wants("growth"):
            return
        with (
            tempfile.TemporaryDirectory(prefix="ataa-bench-", ignore_cleanup_errors=True) as directory,
            self._skipping(["growth"]),
        ):
            what = f"a donation with {self._options.stored:,} stored"
            self._progress.begin(what, self._options.growth_s * 5 + 240)
            self._add(growth.measure(Path(directory), self._options))

    @contextmanager
    def _started(self, name: str, data: Path) -> Iterator[System]:
        self._progress.begin(f"starting the {name} system")
        start = embedded_system if name == "embedded" else stack_system
        with start(ROOT, data, first_free_port()) as system:
            yield system
            self._progress.begin(f"stopping the {name} system")

    def _measure_donations(self, system: System) -> None:
        options = self._options
        name = "donations" if system.name == "embedded" else f"donations{STACK}"
        with self._skipping([name]):
            if self._donations_floor is None:
                self._progress.begin("floor of donations", options.floor_s)
                self._donations_floor = donations.measure_floor(options)
            self._progress.begin(SPECS[name].what, options.donations_s)
            measured, run = donations.measure(system, options, self._donations_floor, self._flames)
            self._drive = run.drive if system.name == "embedded" else self._drive
            self._add(measured)

    def _measure_freshness(self, system: System) -> None:
        suffix = "" if system.name == "embedded" else STACK
        for name, rate in (("freshness", freshness.RATE), ("freshness_150", freshness.HIGH_RATE)):
            with self._skipping([f"{name}{suffix}"]):
                what = f"webhook to frame at {rate:.0f}/s, {system.name}"
                self._progress.begin(what, self._options.freshness_s)
                self._add(freshness.measure(system, self._options, rate))

    def _measure_intake(self, system: System) -> None:
        name = "intake" if system.name == "embedded" else f"intake{STACK}"
        with self._skipping([name]):
            if self._intake_floor is None:
                self._progress.begin("floor of intake", self._options.intake_s)
                self._intake_floor = intake.measure_floor(self._options)
            self._progress.begin(SPECS[name].what, self._options.intake_s)
            with self._flames.of(name, system.own_processes):
                measured = intake.measure(system, self._options, self._intake_floor)
            self._add(measured)

    def _measure_gateway(self, data: Path) -> None:
        if not self._drive:
            return
        options = self._options
        if self._wants("reads"):
            with self._skipping(names_of(["reads"])), self._gateway(data, 0) as gateway:
                self._progress.begin("totals of one gateway process", options.reads_s * 3)
                with self._flames.of("reads", {"gateway": gateway.pid}):
                    for measured in reads.measure(gateway, self._drive, options):
                        self._add(measured)
        if self._wants("fanout"):
            with self._skipping(names_of(["fanout"])):
                fanout.require_open_files(options.fanout_clients)
                with self._gateway(data, options.frames_per_s, fanout.SETTINGS) as gateway:
                    what = f"{options.fanout_clients:,} streams of one gateway process"
                    self._progress.begin(what, options.fanout_s * 2)
                    with self._flames.of("fanout", {"gateway": gateway.pid}):
                        for measured in fanout.measure(gateway, self._drive, options, self._progress):
                            self._add(measured)

    def _gateway(
        self, data: Path, frames_per_s: float, settings: Mapping[str, str] | None = None
    ) -> AbstractContextManager[child.Child]:
        environment = {"ATAA_DATA_DIR": str(data), **(settings or {})}
        arguments = ("gateway", self._drive, str(frames_per_s))
        return child.running("bench.single_service", *arguments, environment=environment)
