"""The periodic comparison of the ledger with the payments."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from prometheus_client import Gauge

from backbone.database.database import LONG_TIMEOUT_S, Database
from backbone.periodic import run_every
from services.payments.recording import estimates, ledger

AUDIT_S: Final = 60.0

log = structlog.get_logger()

_AUDITED: Final = Gauge("ataa_ledger_audited_timestamp_seconds", "When the ledger was last compared.")
_DRIFT: Final = Gauge(
    "ataa_ledger_drift_minor_units",
    "Net of the payments less the ledger's clearing balance: 0.",
    ["currency"],
)


class LedgerAudit:
    """Compares the ledger with the payments every `AUDIT_S`, and counts the estimates."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, stop: asyncio.Event) -> None:
        """Audit until `stop`."""
        await run_every(AUDIT_S, self.audit, stop)

    async def audit(self) -> dict[str, int]:
        """The ledger's drift by currency (see `ledger.drift`); anything but 0 is logged as an error."""
        async with self._database.reading(timeout_s=LONG_TIMEOUT_S) as session:
            found = await ledger.drift(session)
            await estimates.count(session)
        for currency, units in found.items():
            _DRIFT.labels(currency).set(units)
            if units:
                log.error("ledger.drift", currency=currency, minor_units=units)
        _AUDITED.set_to_current_time()
        return found
