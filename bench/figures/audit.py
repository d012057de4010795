"""The audit of a drive with as many payments as the largest one: its time, and the memory it takes."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy import delete, select

from backbone.clock import SystemClock
from backbone.contracts import DriveChanged, DriveState, Event, PaymentChanged, decode
from backbone.database.database import Database
from backbone.http.service_client import InProcessServiceClient
from backbone.ids import DriveId
from backbone.money import Money
from backbone.process import run_on_uvloop
from backbone.service import new_app
from bench import single_figure
from bench.results import Detail
from bench.steps import Advance, Steps
from bench.systems import ROOT
from services.leaderboard import tables as board_tables
from services.leaderboard.app import MIGRATIONS as BOARD_MIGRATIONS
from services.leaderboard.audit_api import audit_routes
from services.leaderboard.freshness import Freshness
from services.leaderboard.handlers import HANDLERS as COUNTING
from services.payments.app import MIGRATIONS
from services.payments.domain import CaptureRank, FactKind, Observation, RefundRank
from services.payments.drive_lookup import KnownDrive
from services.payments.handlers import HANDLERS
from services.payments.proof.steps import Audit
from services.payments.recording.record import record
from services.payments.tables import MESSAGING_TABLES

AIM_S: Final = 10.0
AIM_MIB: Final = 50.0
PAYMENTS: Final = 155_000
BATCH: Final = 500
REFUNDED: Final = 50
"""One payment in so many is partly refunded."""
_DRIVE: Final = DriveId("drv_01frtz5n00000000000000000a")
_BEGAN: Final = datetime(2022, 1, 7, tzinfo=UTC)
_SECRET: Final = "bench"  # noqa: S105 - the bench's own


class NotClean(Exception):
    """The audit found differences in books that are right."""


def measure(folder: Path, rows: int, steps: Steps) -> Mapping[str, Detail]:
    """`audit`: every payment, posting and row of the log on SQLite, in a process that has both services'
    databases; the floor reads the same rows with sqlite3.
    """
    payments = min(rows, PAYMENTS)
    with steps.step(f"audit: storing {payments:,} payments", payments) as advance:
        run_on_uvloop(_seed(folder, payments, advance))
    command = [sys.executable, "-m", "bench.figures.audit", str(folder)]
    with steps.step("audit", 1) as advance:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        advance(1)
    found = json.loads(done.stdout.splitlines()[-1])
    if found["found"] or found["payments"] != payments:
        raise NotClean(f"the audit of {payments} payments: {found}")
    floor_s = _read_all(folder)
    details: dict[str, Detail] = {
        "payments": payments,
        "cpu_s": found["cpu_s"],
        "idle_mib": found["idle_mib"],
        "above_idle_mib": found["above_idle_mib"],
        "aim_above_idle_mib": AIM_MIB,
        "log_rows": found["log_rows"],
        "floor_is": "reading the same tables with sqlite3",
    }
    return single_figure.of(f"Audit of {payments:,} payments", found["took_s"], "s", AIM_S, details, floor_s)


# The books, written by the services' own code.


async def _seed(folder: Path, payments: int, advance: Advance) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    own, board = await _open(folder)
    drive = DriveChanged(
        drive_id=_DRIVE, version=1, state=DriveState.LIVE, slug="winter", title="Winter", currency="USD",
        goal=Money(1_100_000_000, "USD"), milestones=[], test=False, changed_at=_BEGAN,
    )  # fmt: skip
    try:
        async with own.transaction() as session:
            await HANDLERS[DriveChanged]([drive], session)
        await _count(board, [drive])
        for first in range(0, payments, BATCH):
            seen = [_capture(n) for n in range(first, min(first + BATCH, payments))]
            seen += [_refund(n) for n in range(first, min(first + BATCH, payments)) if n % REFUNDED == 0]
            async with own.transaction() as session:
                await record(session, seen, _BEGAN)
            await _count(board, await _announced(own))
            advance(BATCH)
    finally:
        await own.close()
        await board.close()


async def _open(folder: Path) -> tuple[Database, Database]:
    own = Database(f"sqlite:///{folder / 'payments.db'}", MESSAGING_TABLES, synchronous="OFF")
    await own.migrate(MIGRATIONS)
    board = Database(
        f"sqlite:///{folder / 'leaderboard.db'}", board_tables.MESSAGING_TABLES, synchronous="OFF"
    )
    await board.migrate(BOARD_MIGRATIONS)
    return own, board


def _capture(number: int) -> Observation:
    at = _BEGAN + timedelta(milliseconds=number)
    intent, ours = f"pi_{number}", f"{number:026d}"
    return Observation(
        intent, FactKind.CAPTURE, intent, 2_500, "USD", CaptureRank.BY_INTENT, at,
        payment_id=f"pay_{ours}", drive_id=_DRIVE,
    )  # fmt: skip


def _refund(number: int) -> Observation:
    at = _BEGAN + timedelta(milliseconds=number)
    return Observation(f"re_{number}", FactKind.REFUND, f"pi_{number}", 500, "USD", RefundRank.SUCCEEDED, at)


async def _announced(own: Database) -> list[Event]:
    outbox = MESSAGING_TABLES.outbox
    async with own.lossy_transaction() as session:
        rows = (await session.execute(select(outbox).order_by(outbox.c.number))).all()
        await session.execute(delete(outbox))
    return [event for row in rows if (event := decode(row.name, row.value)) is not None]


async def _count(board: Database, events: Sequence[Event]) -> None:
    async with board.transaction() as session:
        for kind in (DriveChanged, PaymentChanged):
            if chosen := [event for event in events if type(event) is kind]:
                await COUNTING[kind](chosen, session)
        await session.execute(delete(board_tables.MESSAGING_TABLES.outbox))


# The process that audits.


def _begin_peak() -> None:
    """Have VmHWM begin anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


async def _print_audit(folder: Path) -> None:
    print(json.dumps(await _audit(folder)))  # noqa: T201 - read by `measure`


async def _audit(folder: Path) -> dict[str, Any]:
    own, board = await _open(folder)
    app = new_app("leaderboard", _SECRET)

    async def nothing() -> int:
        return 0

    async def outbox_empty() -> bool:
        return True

    app.include_router(audit_routes(board, Freshness({}, dict), nothing))
    audit = Audit(own, InProcessServiceClient(app), _SECRET, SystemClock(), outbox_empty, round_s=0.0)
    drive = KnownDrive(_DRIVE, "winter", "USD", "live", False, "default")
    try:
        await audit.begin(drive)  # compiles what it takes to begin
        _begin_peak()
        idle_mib, began, cpu = _mib("VmRSS"), time.perf_counter(), time.process_time()
        state = await audit.begin(drive)
        while state.stage != "done":
            await audit.step(state)
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    finally:
        await own.close()
        await board.close()
    return {
        "took_s": took_s, "cpu_s": cpu_s, "idle_mib": idle_mib, "above_idle_mib": _mib("VmHWM") - idle_mib,
        "found": state.found, "payments": state.payments, "log_rows": state.log.length,
    }  # fmt: skip


def _mib(name: str) -> float:
    """A size of this process in MiB (proc(5), status)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


# The floor.

_READ: Final = (
    ("payments.db", "SELECT * FROM payments WHERE drive_id = ? AND paid_currency IS NOT NULL ORDER BY id"),
    ("payments.db", "SELECT * FROM facts WHERE ? IS NOT NULL"),
    ("payments.db", "SELECT * FROM postings WHERE drive_id = ?"),
    ("leaderboard.db", "SELECT * FROM payments WHERE drive_id = ?"),
    ("leaderboard.db", "SELECT * FROM drive_log WHERE drive_id = ? ORDER BY epoch, sequence"),
)


def _read_all(folder: Path) -> float:
    """Seconds to read every row that an audit reads."""
    began = time.perf_counter()
    for file, statement in _READ:
        with closing(sqlite3.connect(folder / file)) as database:
            rows = database.execute(statement, (_DRIVE,))
            while rows.fetchmany(2_000):
                pass
    return time.perf_counter() - began


if __name__ == "__main__":
    run_on_uvloop(_print_audit(Path(sys.argv[1])))
