"""One run of one seed, from the copied template to its verdict."""

from __future__ import annotations

import asyncio
import logging
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from sandbox.faults import Faults
from simulation.checks import Checks
from simulation.live_viewer import LiveViewer, holds_stream
from simulation.system import System, copy_files
from simulation.virtual_time import Livelock, VirtualLoop, repeatable, run
from simulation.workload import Donors, NotServed, add_milestone, every_outcome, open_drive, plan

TEMPLATE_S: Final = 60.0
"""Runs begin so long after the template was made."""
FAULTS_S: Final = (1.0, 4.0)
"""Faults may happen at least and at most so long; in between, until the donors have finished."""
WHOLE_CRASH_CHANCE: Final = 0.25
WARM_UP_SEED: Final = 0
WARM_UPS: Final = 3
"""A statement is compiled when it is executed for the second time."""
FILES: Final = ("bus.db", "gateway.db", "leaderboard.db", "notify.db", "payments.db", "pledges.db")


@dataclass(slots=True)
class Verdict:
    """What a run found."""

    seed: int
    violations: list[str]
    digest: str
    virtual_s: float
    faults: list[str]
    crashes: int
    lines: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def make_template(system: System, template: Path) -> None:
    """Migrate the databases, open a drive, and keep the files."""
    from simulation.store import FaultyDatabase

    system.folder.mkdir(parents=True, exist_ok=True)
    template.mkdir(parents=True, exist_ok=True)
    structlog.configure(processors=[_drop])

    async def prepare(loop: VirtualLoop) -> None:
        system.begin(loop, 0)
        await system.start()
        await open_drive(system)
        await asyncio.sleep(2.0)
        await system.end()

    with repeatable(0) as loop:
        run(loop, prepare(loop))
    FaultyDatabase.migrating = False
    copy_files(system.folder, template, FILES)


def run_seed(system: System, template: Path, seed: int, *, keep_trace: bool = False) -> Verdict:
    """Run `seed` on a fresh copy of the template."""
    copy_files(template, system.folder, FILES)
    with repeatable(seed, offset_s=TEMPLATE_S) as loop:
        try:
            verdict: Verdict = run(loop, _run(system, loop, seed, keep_trace))
        except Livelock as stuck:
            verdict = _verdict(system, seed, [str(stuck)], loop.time())
    return verdict


def warm_up(system: System, template: Path) -> None:
    """Fill the caches of this process with runs without faults, so that its forks are fast."""
    for _ in range(WARM_UPS):
        _warm_up(system, template)


def _warm_up(system: System, template: Path) -> None:
    copy_files(template, system.folder, FILES)

    async def give(loop: VirtualLoop) -> None:
        current = system.begin(loop, WARM_UP_SEED)
        _capture_problems(current.trace.note)
        await system.start()
        donors, live = Donors(system, every_outcome()), LiveViewer(system, WARM_UP_SEED)
        live.begin(disturbed=False)
        await asyncio.gather(donors.give(), add_milestone(system, WARM_UP_SEED))
        await Checks(system, donors.workload, live).settle()
        await system.end()

    with repeatable(WARM_UP_SEED, offset_s=TEMPLATE_S) as loop:
        run(loop, give(loop))


async def _run(system: System, loop: VirtualLoop, seed: int, keep_trace: bool) -> Verdict:
    current = system.begin(loop, seed, keep_trace=keep_trace)
    problems = _capture_problems(current.trace.note)
    loop.set_exception_handler(lambda _, about: problems.append(_described(about)))
    violations: list[str] = []
    began = loop.time()
    try:
        await system.start()
        donors = Donors(system, plan(seed))
        live = LiveViewer(system, seed) if holds_stream(seed) else None
        checks = Checks(system, donors.workload, live)
        watching = asyncio.create_task(checks.viewer.watch())
        current.plan.active = True
        current.sandbox.inject(current.plan.of_sandbox())
        crashing = asyncio.create_task(_crash_all(system))
        ending = asyncio.create_task(_end_faults(system, FAULTS_S[1]))
        try:
            if live is None:
                await donors.give()
            else:
                live.begin(disturbed=True)
                await asyncio.gather(donors.give(), add_milestone(system, seed))
        except NotServed as refused:
            violations.append(str(refused))
        await crashing
        await _end_faults(system, began + FAULTS_S[0] - loop.time())
        ending.cancel()
        await system.all_ready()
        if not violations:
            violations += await checks.settle()
        watching.cancel()
        violations += checks.viewer.shown.violations
    except Exception:
        violations.append("the run failed: " + traceback.format_exc(limit=-6))
    violations += problems
    return _verdict(system, seed, violations, loop.time() - began)


def _verdict(system: System, seed: int, violations: list[str], took_s: float) -> Verdict:
    current = system.run
    crashes = sum(node.crashes for node in current.nodes.values())
    trace = current.trace
    return Verdict(
        seed, violations, trace.digest(), round(took_s, 3), current.plan.drawn, crashes, trace.lines
    )  # fmt: skip


async def _crash_all(system: System) -> None:
    """In some seeds, crash the whole system once."""
    chance = system.run.plan.random
    if chance.random() < WHOLE_CRASH_CHANCE:
        await asyncio.sleep(chance.uniform(0.2, FAULTS_S[0]))
        await system.crash_all()


async def _end_faults(system: System, after_s: float) -> None:
    """Let no more faults happen, at the sandbox either, after a while."""
    await asyncio.sleep(after_s)
    system.run.plan.active = False
    system.run.sandbox.inject(Faults())


def _capture_problems(note: Any) -> list[str]:
    """What services log as errors, which no injected fault may cause."""
    problems: list[str] = []

    def capture(_logger: Any, method: str, event: Any) -> Any:
        text = " ".join(f"{name}={value}" for name, value in event.items() if name not in ("exc_info",))
        note(f"log {method} {text}"[:400])
        if method in ("error", "exception", "critical"):
            found = traceback.format_exc(limit=-4) if event.get("exc_info") else ""
            problems.append(f"logged {text} {found}")
        raise structlog.DropEvent

    structlog.reset_defaults()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
    return problems


def _drop(_logger: Any, _method: str, _event: Any) -> Any:
    raise structlog.DropEvent


def _described(about: dict[str, Any]) -> str:
    error = about.get("exception")
    trace = "".join(traceback.format_exception(error, limit=-6)) if error is not None else ""
    return f"{about.get('message')}: {trace}"
