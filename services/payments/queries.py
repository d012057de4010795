"""Reads for other services and operators: checkouts, books, work not yet done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select

from backbone.clock import rfc3339
from backbone.contracts.payments import PaymentStatus, nearest_status, pledge_status
from backbone.contracts.pledges import PledgeStatus
from backbone.database.transaction import SyncTransaction, Transaction
from backbone.money import decimal_string
from services.payments.admission.estimates import Estimates
from services.payments.admission.store import count_waiting, read_queue
from services.payments.recording import ledger
from services.payments.tables import ATTEMPTS, FACTS, PAYMENTS, QUARANTINED, WAITING, WEBHOOKS

_COLUMNS: Final = (
    PAYMENTS.c.pledge_id, PAYMENTS.c.capture_index, PAYMENTS.c.number, PAYMENTS.c.status, PAYMENTS.c.version,
    PAYMENTS.c.checkout, PAYMENTS.c.checkout_url, PAYMENTS.c.client_secret, PAYMENTS.c.expires_at,
    PAYMENTS.c.cancelled, PAYMENTS.c.queue_rate, PAYMENTS.c.captured, PAYMENTS.c.refunded,
    PAYMENTS.c.disputed,
)  # fmt: skip


async def read_checkouts(
    session: Transaction, pledges: Sequence[str], publishable_key: str, now: datetime
) -> dict[str, Any]:
    """Status, checkout and queue position of pledges, by id; unknown pledges are left out."""
    statement = select(*_COLUMNS).where(PAYMENTS.c.pledge_id.in_(pledges))
    every = (await session.execute(statement)).all()
    rows = [row for row in every if row.capture_index == 0]
    further = [row for row in every if row.capture_index > 0]
    is_waiting = any(row.checkout == "waiting" for row in rows)
    estimates = (await read_queue(session)).estimates if is_waiting else None
    return {
        row.pledge_id: {
            "status": _status(row, further),
            "checkout": _checkout(row, publishable_key, now),
            "queue": _queue(row, estimates),
            "version": row.version,
        }
        for row in rows
    }


def _status(own: Any, further: Sequence[Any]) -> str | None:
    """A pledge's status by its payments; None while they imply none."""
    every = (own, *(row for row in further if row.pledge_id == own.pledge_id))
    status = pledge_status(
        nearest_status(row.status, row.captured, row.refunded, row.disputed) for row in every
    )
    return None if status is PledgeStatus.OPEN else status


def _checkout(row: Any, publishable_key: str, now: datetime) -> dict[str, Any] | None:
    if row.checkout != "open" or not _is_wanted(row) or row.expires_at <= now:
        return None
    return {
        "url": row.checkout_url,
        "client_secret": row.client_secret,
        "publishable_key": publishable_key or None,
        "expires_at": rfc3339(row.expires_at),
    }


def _is_wanted(row: Any) -> bool:
    return row.status == PaymentStatus.AWAITED and not row.cancelled


def _queue(row: Any, estimates: Estimates | None) -> dict[str, int] | None:
    """The ticket's place in the queue, from 1; 0 once it is its turn. Neither figure ever grows."""
    if row.checkout not in ("waiting", "opening") or not _is_wanted(row):
        return None
    if row.checkout == "opening" or estimates is None:
        return {"position": 0, "eta_seconds": 0}
    position, eta = estimates.position(row.number), estimates.eta_seconds(row.number, row.queue_rate)
    return {"position": position, "eta_seconds": eta}


def read_books(transaction: SyncTransaction) -> dict[str, str]:
    """The ledger's balance of processor money by currency, as decimal strings. Sums the whole ledger."""
    balances = ledger.processor_balance(transaction)
    return {currency: decimal_string(units, currency) for currency, units in sorted(balances.items())}


async def unapplied_webhooks(session: Transaction) -> int:
    """The number of stored webhooks not yet applied."""
    return await _count(session, WEBHOOKS, WEBHOOKS.c.state == WAITING)


async def waiting_tickets(session: Transaction) -> int:
    """The number of tickets in the queue."""
    return await count_waiting(session)


async def open_attempts(session: Transaction) -> int:
    """The number of checkout attempts without a recorded outcome."""
    return await _count(session, ATTEMPTS, ATTEMPTS.c.state == "sent")


async def quarantined_webhooks(session: Transaction) -> int:
    """The number of quarantined webhooks; they are retried with exponential backoff."""
    return await _count(session, WEBHOOKS, WEBHOOKS.c.state == QUARANTINED)


async def unplaced_facts(session: Transaction) -> int:
    """The number of refunds and disputes without a payment."""
    return await _count(session, FACTS, FACTS.c.payment_id.is_(None), FACTS.c.intent.is_not(None))


async def _count(session: Transaction, table: Any, *conditions: Any) -> int:
    counted = select(func.count()).select_from(table).where(*conditions)
    return int((await session.execute(counted)).scalar_one())
