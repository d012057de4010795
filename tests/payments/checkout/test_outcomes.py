"""Which outcomes of attempts may be undone by a power failure: those that nobody has seen in an event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from backbone.clock import FrozenClock
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from services.payments.app import MIGRATIONS
from services.payments.checkout.attempts import AttemptOutcome, SentAttempt
from services.payments.checkout.outcomes import OutcomeRecorder
from services.payments.checkout.session_finder import CLOCK_SKEW
from services.payments.processor import OpenedCheckout
from services.payments.tables import MESSAGING_TABLES

NOW: Final = datetime(2026, 11, 27, tzinfo=UTC)
SENT: Final = SentAttempt("pay_1.1", "pay_1", 1, {}, NOW)


class CountingDatabase(Database):
    """Counts its lossy transactions."""

    lossy = 0

    @asynccontextmanager
    async def lossy_transaction(self) -> AsyncIterator[Transaction]:
        self.lossy += 1
        async with super().lossy_transaction() as transaction:
            yield transaction


def opened(ends_in: timedelta) -> AttemptOutcome:
    return AttemptOutcome(SENT, OpenedCheckout("cs_1", "https://stripe/", None, NOW + ends_in))


REFUSED: Final = AttemptOutcome(SENT, None, "refused")
LONG: Final = timedelta(hours=1)


@pytest.mark.parametrize(
    ("batch", "lossy"),
    [
        ([opened(LONG)], True),
        ([opened(LONG), opened(LONG)], True),
        ([opened(CLOCK_SKEW)], False),
        ([REFUSED], False),
        ([opened(LONG), REFUSED], False),
    ],
)
async def test_only_open_checkouts_are_recorded_in_lossy_transactions(
    tmp_path: Path, batch: list[AttemptOutcome], lossy: bool
) -> None:
    database = CountingDatabase(f"sqlite:///{tmp_path / 'payments.db'}", MESSAGING_TABLES)
    await database.migrate(MIGRATIONS)
    recorder = OutcomeRecorder(database, FrozenClock(NOW), lambda: 0.0, lambda: None)
    await recorder.run_batch(batch)
    await database.close()
    assert database.lossy == int(lossy)
