"""Payouts, made by a control: they pay out what is available (https://docs.stripe.com/payouts).

A payout is in transit for a second, then paid, or failed where the control asked for that. A failed payout's
amount returns to the balance by a balance transaction of its own; what it had paid out stays assigned to it.
"""

from __future__ import annotations

from typing import Final

from sandbox import forms
from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.balance import INSERT
from sandbox.errors import not_found
from sandbox.events import Subject
from sandbox.listing import Clause, page_of
from sandbox.records import Json, Payout, new_id
from sandbox.stripe_objects import page_object, payout_object

ARRIVES_AFTER_S: Final = 1.0
AVAILABLE: Final = (
    "SELECT currency, SUM(amount - fee) FROM balance_transactions WHERE payout IS NULL GROUP BY currency"
)


def make_payouts(account: Account, currency: str | None, *, failing: bool = False) -> list[Json]:
    """Pay out what is available, one payout a currency; none where that is not positive."""
    made = []
    for each, amount in account.journal.rows(AVAILABLE):
        if amount > 0 and currency in (None, each):
            made.append(_make(account, each, amount, "fail_payout" if failing else "settle_payout"))
    return made


def _make(account: Account, currency: str, amount: int, action: str) -> Json:
    payout_id, created = new_id("po_"), int(account.clock())
    account.journal.write(
        "UPDATE balance_transactions SET payout = ? WHERE payout IS NULL AND currency = ?",
        (payout_id, currency),
    )
    account.journal.write(
        "INSERT INTO payouts (id, created, amount, currency, status) VALUES (?, ?, ?, ?, 'in_transit')",
        (payout_id, created, amount, currency),
    )
    _move(account, f"txn_{payout_id[3:]}", "payout", payout_id, -amount, currency, payout_id)
    account.schedule(action, payout_id, ARRIVES_AFTER_S)
    return _emit(account, payout_id, "payout.created")


def settle_payout(account: Account, payout_id: str) -> None:
    """Mark a payout paid and its balance transactions complete, as when the bank reports it."""
    account.journal.write("UPDATE payouts SET status = 'paid' WHERE id = ?", (payout_id,))
    _emit(account, payout_id, "payout.paid")
    _emit(account, payout_id, "payout.reconciliation_completed")


def fail_payout(account: Account, payout_id: str) -> None:
    """Mark a payout failed: its amount returns to the balance."""
    payout = _payout(account, payout_id)
    account.journal.write("UPDATE payouts SET status = 'failed' WHERE id = ?", (payout_id,))
    key = f"txn_{payout_id[3:]}f"
    _move(account, key, "payout_failure", payout_id, payout.amount, payout.currency, None)
    _emit(account, payout_id, "payout.failed")
    _emit(account, payout_id, "payout.reconciliation_completed")


def _move(
    account: Account, key: str, kind: str, payout_id: str, amount: int, currency: str, payout: str | None
) -> None:
    category = "payout" if kind == "payout" else "payout_reversal"
    values = (key, int(account.clock()), kind, category, payout_id, None, amount, 0, currency)
    account.journal.write(INSERT, (*values, "STRIPE PAYOUT", payout))


def _emit(account: Account, payout_id: str, kind: str) -> Json:
    shown = payout_object(_payout(account, payout_id))
    account.events.emit(kind, Subject(), shown)
    return shown


def _payout(account: Account, payout_id: str) -> Payout:
    row = account.journal.row("SELECT * FROM payouts WHERE id = ?", (payout_id,))
    if row is None:
        raise not_found("payout", payout_id)
    return Payout._make(row)


def retrieve_payout(account: Account, call: ApiCall) -> Json:
    """Retrieve a payout by id. Raises ApiError (404)."""
    return payout_object(_payout(account, call.target))


def list_payouts(account: Account, call: ApiCall) -> Json:
    """List payouts, newest first; filters: status, created."""
    clauses: list[Clause] = []
    if (status := forms.text(call.params, "status")) is not None:
        clauses.append(("status = ?", (status,)))
    rows, more = page_of(account, "payouts", call.params, clauses)
    return page_object([payout_object(Payout._make(row)) for row in rows], more, "/v1/payouts")
