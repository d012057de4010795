"""The periodic comparison of the ledger with the payments."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from prometheus_client import Gauge

from backbone.database.database import Database
from backbone.wakeups import wait_for
from services.payments.recording import estimates, ledger
from services.payments.recording.restate import note_currency

AUDIT_S: Final = 60.0
"""The least pause between two audits."""
REST_RATIO: Final = 20.0
"""The pause after an audit, as a multiple of what it took: an audit reads every payment and posting."""
MAX_PAUSE_S: Final = 300.0
"""The longest pause: the alert AtaaLedgerNotAudited allows ten minutes."""

log = structlog.get_logger()

_AUDITED: Final = Gauge("ataa_ledger_audited_timestamp_seconds", "When the ledger was last compared.")
_DRIFT: Final = Gauge(
    "ataa_ledger_drift_minor_units",
    "Net of the payments less the ledger's balance of processor money: 0.",
    ["currency"],
)
_BALANCE: Final = Gauge(
    "ataa_ledger_balance_minor_units",
    "Debits less credits of an account of the ledger, as last compared.",
    ["account", "currency"],
)


class LedgerAudit:
    """Compares the ledger with the payments about once a minute, and counts the estimates."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, stop: asyncio.Event) -> None:
        """Audit until `stop`."""
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            began = loop.time()
            await self.audit()
            await wait_for(stop, min(max(AUDIT_S, REST_RATIO * (loop.time() - began)), MAX_PAUSE_S))

    async def audit(self) -> dict[str, int]:
        """The ledger's drift by currency (see `ledger.Compared`); anything but 0 is logged as an error."""
        compared = await self._database.read_whole(ledger.compare)
        async with self._database.reading() as session:
            await estimates.count(session)
        for currency, units in compared.drift.items():
            _DRIFT.labels(currency).set(units)
            if units:
                log.error("ledger.drift", currency=currency, minor_units=units)
        for (account, currency), units in compared.balances.items():
            note_currency(currency)
            _BALANCE.labels(account, currency).set(units)
        _AUDITED.set_to_current_time()
        return dict(compared.drift)
