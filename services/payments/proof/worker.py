"""Makes the audits that are asked for, and one of each running drive every quarter of an hour."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Gauge

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.http.problems import NotFound, Overloaded
from backbone.http.service_client import ServiceUnavailable
from backbone.wakeups import wait_for, wake_on_stop
from services.payments.drive_lookup import DriveLookup, KnownDrive
from services.payments.proof import store
from services.payments.proof.state import AuditState
from services.payments.proof.steps import Audit

POLL_S: Final = 1.0
"""How often another process's requests are looked for."""
ROUTINE: Final = timedelta(minutes=15)
"""How long after an audit a running drive is audited again although nobody asks."""
BEFORE_ROUTINE_S: Final = 300.0
"""How long after its start a process begins with these."""
REST_RATIO: Final = 4.0
"""The pause after an audit, as a multiple of what it took: it reads every payment of the drive."""
MAX_STEPS: Final = 100_000

log = structlog.get_logger()

_AUDITED: Final = Gauge("ataa_audit_timestamp_seconds", "When all running drives had a recent audit.")
_DIFFERENCE: Final = Gauge(
    "ataa_audit_difference_minor_units",
    "Money by which the sources differ, by the newest audit of each drive: 0.",
    ["currency"],
)
_DIFFERENCES: Final = Gauge(
    "ataa_audit_differences", "Differences that the newest audit of each drive found: 0.", ["currency"]
)


class Auditor:
    """Audits drives, one at a time in one process at a time. `asked` wakes it."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        drives: DriveLookup,
        clock: Clock,
        *,
        before_routine_s: float = BEFORE_ROUTINE_S,
    ) -> None:
        self.asked = asyncio.Event()
        self._database = database
        self._audit = audit
        self._drives = drives
        self._clock = clock
        self._before_routine_s = before_routine_s

    async def run(self, stop: asyncio.Event) -> None:
        """Audit until `stop`; where leaderboard is unavailable, the audit is begun again."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        _AUDITED.set_to_current_time()  # what is late is late since the start
        async with wake_on_stop(stop, self.asked):
            while not stop.is_set():
                self.asked.clear()
                before = loop.time()
                try:
                    worked = await self.run_due(routine=before - began >= self._before_routine_s)
                except (ServiceUnavailable, Overloaded) as error:
                    log.warning("audit.interrupted", reason=str(error))
                    await wait_for(stop, 5 * POLL_S)
                    continue
                if worked:
                    await wait_for(stop, REST_RATIO * (loop.time() - before))
                elif not stop.is_set():
                    await wait_for(self.asked, POLL_S)

    async def run_due(self, *, routine: bool = True) -> bool:
        """Make the next audit that is asked for or, with `routine`, due; whether there was one."""
        drive_id = await store.next_asked(self._database)
        if drive_id is None and routine:
            drive_id = await store.next_due(self._database, self._clock.now() - ROUTINE)
            if drive_id is None:
                _AUDITED.set_to_current_time()
        if drive_id is None:
            return False
        try:
            drive = await self._drives.find(drive_id)
        except NotFound:
            await store.withdraw(self._database, drive_id)
            return True
        await self._make(drive)
        return True

    async def _make(self, drive: KnownDrive) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        _AUDITED.set_to_current_time()  # what is late is late since the start
        state = await self._audit.begin(drive)
        for _ in range(MAX_STEPS):
            if state.stage == "done":
                break
            await self._audit.step(state)
            await asyncio.sleep(0)
        took_ms = int(1000 * (loop.time() - began))
        reply = store.reply_of(drive, state, await store.swept_to(self._database))
        await store.save(self._database, state, reply, self._clock.now(), took_ms)
        _report(drive, state)
        for currency, (differences, minor_units) in (await store.found_in_all(self._database)).items():
            _DIFFERENCES.labels(currency).set(differences)
            _DIFFERENCE.labels(currency).set(minor_units)


def _report(drive: KnownDrive, state: AuditState) -> None:
    """Log the first of the differences; `ataa audit` prints all."""
    for found in state.differences[:10]:
        log.error(
            "audit.difference",
            drive=drive.id,
            payment=found.payment,
            what=found.what,
            figures=found.figures,
            currency=found.currency,
        )
