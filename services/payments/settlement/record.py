"""Storing balance transactions and posting them, in their caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import bindparam, select, text, update

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.processor import Movement
from services.payments.recording import ledger
from services.payments.recording.ledger import NewPosting
from services.payments.settlement.movements import (
    PAYOUT_TYPES,
    MovementState,
    PlacedPayment,
    postings_of,
    state_of,
)
from services.payments.settlement.tables import BALANCE_TRANSACTIONS, PAYOUTS, WAITING_MOVEMENTS
from services.payments.statements import insert_new
from services.payments.tables import PAYMENTS

FIRST_RETRY: Final = timedelta(seconds=15)
LAST_RETRY: Final = timedelta(days=1)
"""Bounds of the delay before a waiting transaction is looked at again; it doubles each time."""

MAX_TRIES: Final = 45
"""After about a month, a transaction whose payment is still unknown is foreign."""

WAITING_BATCH: Final = 500

log = structlog.get_logger()

Posted = tuple[NewPosting, str | None, str | None]


async def record_movements(session: Transaction, movements: Sequence[Movement], at: datetime) -> int:
    """Store the new ones of these movements and post them; returns how many were new.

    Order and repetition do not matter. A movement whose payment is unknown is stored, and posted by
    `place_waiting`. A payout's own movement makes the payout known.
    """
    unique = {movement.id: movement for movement in movements}
    payments = await _payments(session, {each.intent for each in unique.values() if each.intent})
    states = {each: state_of(movement, payments) for each, movement in unique.items()}
    rows = [_row(unique[each], states[each], payments, at) for each in sorted(unique)]
    if not rows:
        return 0
    made = await session.execute(insert_new(session, BALANCE_TRANSACTIONS, "id"), rows)
    new = [unique[row.id] for row in made]
    posted = [each for each in new if states[each.id] is MovementState.POSTED]
    await ledger.post(session, _all_postings(posted, payments), at)
    await _note_payouts(session, [each for each in new if each.type in PAYOUT_TYPES], at)
    _report_held([each for each in new if states[each.id] is MovementState.HELD])
    return len(new)


def _row(
    movement: Movement, state: MovementState, payments: Mapping[str, PlacedPayment], at: datetime
) -> dict[str, Any]:
    payment = payments.get(movement.intent or "")
    names = ("id", "type", "source", "intent", "amount", "fee", "currency", "exchange_rate")
    return {name: getattr(movement, name) for name in (*names, "created_at", "available_on")} | {
        "state": state.value,
        "payment_id": payment.id if payment else None,
        "payout_id": None,
        "tries": 0,
        "next_try_at": at + FIRST_RETRY,
    }


def _all_postings(movements: Sequence[Movement], payments: Mapping[str, PlacedPayment]) -> list[Posted]:
    postings: list[Posted] = []
    for movement in movements:
        payment = payments.get(movement.intent or "")
        ids = (payment.id, payment.drive_id) if payment else (None, None)
        zakat = payment is not None and payment.zakat
        postings += [(posting, *ids) for posting in postings_of(movement, zakat=zakat)]
    return postings


async def _payments(session: Transaction, intents: Collection[str]) -> dict[str, PlacedPayment]:
    """The captured payments of payment intents, by intent."""
    if not intents:
        return {}
    rows = await session.execute(_CAPTURED, {"intents": sorted(intents)})
    return {row.intent: PlacedPayment(row.id, row.drive_id, row.paid_currency, row.zakat) for row in rows}


_CAPTURED: Final = (
    select(PAYMENTS.c.intent, PAYMENTS.c.id, PAYMENTS.c.drive_id, PAYMENTS.c.paid_currency, PAYMENTS.c.zakat)
    .where(one_of(PAYMENTS.c.intent, "intents"), PAYMENTS.c.paid_currency.is_not(None))
    # So that no payment moves to another drive or fund before its fee is posted.
    .order_by(PAYMENTS.c.number)
    .with_for_update(read=True)
)


async def _note_payouts(session: Transaction, movements: Sequence[Movement], at: datetime) -> None:
    """Make the payouts of these movements known, to be read at once; a known one is read again."""
    rows = [
        {"id": each.source, "amount": abs(each.amount), "currency": each.currency, "status": "pending",
         "arrival_at": each.available_on, "created_at": each.created_at, "tries": 0, "next_try_at": at}
        for each in sorted(movements, key=lambda movement: movement.source or "")
        if each.source
    ]  # fmt: skip
    if rows:
        await session.execute(insert_new(session, PAYOUTS), rows)
        await session.execute(_READ_AGAIN, [{"of_id": row["id"], "at": at} for row in rows])


_READ_AGAIN: Final = (
    update(PAYOUTS).where(PAYOUTS.c.id == bindparam("of_id")).values(next_try_at=bindparam("at"))
)


def _report_held(movements: Sequence[Movement]) -> None:
    for each in movements:
        log.warning(
            "settlement.held", transaction=each.id, type=each.type, currency=each.currency,
            exchange_rate=each.exchange_rate,
        )  # fmt: skip


async def place_waiting(session: Transaction, at: datetime) -> int:
    """Post the waiting movements that are due and whose payment is known now; returns how many were posted.

    At most `WAITING_BATCH` are looked at; the others of them wait longer each time.
    """
    rows = (await session.execute(_DUE, {"now": at})).all()
    payments = await _payments(session, {row.intent for row in rows})
    placed = []
    changes = []
    for row in rows:
        movement = Movement(*row[:-1])
        state = state_of(movement, payments)
        if state is MovementState.POSTED:
            placed.append(movement)
        elif state is MovementState.HELD:
            _report_held([movement])
        elif row.tries + 1 >= MAX_TRIES:
            state = MovementState.FOREIGN
        payment = payments.get(movement.intent or "")
        changes.append(
            {"of_id": row.id, "to_state": state.value, "to_payment": payment.id if payment else None,
             "to_tries": row.tries + 1, "at": at + min(FIRST_RETRY * (1 << min(row.tries, 20)), LAST_RETRY)}
        )  # fmt: skip
    if changes:
        await session.execute(_PLACE, changes)
    await ledger.post(session, _all_postings(placed, payments), at)
    return len(placed)


_B: Final = BALANCE_TRANSACTIONS.c
_DUE: Final = (
    select(
        _B.id, _B.type, _B.source, _B.intent, _B.amount, _B.fee, _B.currency, _B.exchange_rate, _B.created_at,
        _B.available_on, _B.tries,
    )
    .where(text(WAITING_MOVEMENTS), _B.next_try_at <= bindparam("now"))
    .order_by(_B.next_try_at)
    .limit(WAITING_BATCH)
    .with_for_update()
)  # fmt: skip
_PLACE: Final = (
    update(BALANCE_TRANSACTIONS)
    .where(_B.id == bindparam("of_id"))
    .values(
        state=bindparam("to_state"), payment_id=bindparam("to_payment"), tries=bindparam("to_tries"),
        next_try_at=bindparam("at"),
    )
)  # fmt: skip
