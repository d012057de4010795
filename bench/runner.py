"""Runs the groups of figures, each on the system it needs, and collects results and reasons."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import child
from bench.donation_run import donate
from bench.event_loop import run_on_uvloop
from bench.figures import donations, freshness, reads
from bench.machine import describe_commit, describe_machine, load_average
from bench.progress import Progress
from bench.results import Detail, Measured, Results
from bench.run_options import RunOptions
from bench.specs import SPECS, names_of
from bench.systems import ROOT, System, embedded_system, free_port_base, stack_system

NOT_QUICK: Final = "not in the quick run"
SEEDING_S: Final = 4.0
ON_EMBEDDED: Final = ("donations", "freshness")
ON_STACK: Final = ("donations", "freshness")
ON_GATEWAY: Final = ("reads",)


class Run:
    """One run: `groups` with `options`, on the systems of this checkout."""

    def __init__(
        self, groups: Collection[str], options: RunOptions, progress: Progress, *, with_stack: bool, note: str
    ) -> None:
        self._groups = groups
        self._options = options
        self._progress = progress
        self._with_stack = with_stack
        self._drive = ""
        self._donations_floor: float | None = None
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
            self._measure_stack()
        for name in names_of(self._groups):
            self.results.skip(name, "not measured")
        self.results.conditions["load_average_after"] = round(load_average(), 2)
        self.results.conditions["seconds"] = round(time.monotonic() - began)
        return self.results

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
        if not self._wants(*ON_EMBEDDED, *ON_GATEWAY):
            return
        names = [name for name in names_of(self._groups) if not name.endswith("_stack")]
        with self._skipping(names), self._started("embedded", data) as system:
            if self._wants("donations"):
                self._measure_donations(system)
            else:
                self._progress.begin("some donations, so that there is something to read")
                self._drive = run_on_uvloop(
                    donate(system, 0.0, SEEDING_S, 32, warm_up_s=1.0, settle=False)
                ).drive
            if self._wants("freshness"):
                self._measure_freshness(system)

    def _measure_stack(self) -> None:
        names = [name for name in names_of(self._groups) if name.endswith("_stack")]
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
            if self._wants("donations"):
                self._measure_donations(system)
            if self._wants("freshness"):
                self._measure_freshness(system)

    @contextmanager
    def _started(self, name: str, data: Path) -> Iterator[System]:
        self._progress.begin(f"starting the {name}" + (" run" if name == "embedded" else ""))
        start = embedded_system if name == "embedded" else stack_system
        with start(ROOT, data, free_port_base()) as system:
            yield system
            self._progress.begin(f"stopping the {name}" + (" run" if name == "embedded" else ""))

    def _measure_donations(self, system: System) -> None:
        options = self._options
        name = "donations" if system.name == "embedded" else "donations_stack"
        with self._skipping([name]):
            if self._donations_floor is None:
                self._progress.begin("floor of donations", options.floor_s)
                self._donations_floor = donations.measure_floor(options)
            self._progress.begin(SPECS[name].what, options.donations_s)
            measured, run = donations.measure(system, options, self._donations_floor)
            self._drive = run.drive if system.name == "embedded" else self._drive
            self._add(measured)

    def _measure_freshness(self, system: System) -> None:
        suffix = "" if system.name == "embedded" else "_stack"
        with self._skipping([f"freshness{suffix}", f"freshness_150{suffix}"]):
            self._progress.begin(
                f"webhook to frame at 40/s and 150/s, {system.name}", self._options.freshness_s * 2
            )
            for measured in freshness.measure(system, self._options):
                self._add(measured)

    def _measure_gateway(self, data: Path) -> None:
        if self._wants("reads") and self._drive:
            with self._skipping(names_of(["reads"])), self._gateway(data, 0) as gateway:
                self._progress.begin("totals of one gateway process", self._options.reads_s * 3)
                for measured in reads.measure(gateway, self._drive, self._options):
                    self._add(measured)

    @contextmanager
    def _gateway(
        self, data: Path, frames_per_s: float, settings: Mapping[str, str] | None = None
    ) -> Iterator[child.Child]:
        environment = {"ATAA_DATA_DIR": str(data), **(settings or {})}
        arguments = ("gateway", self._drive, str(frames_per_s))
        with child.running("bench.single_service", *arguments, environment=environment) as gateway:
            yield gateway
