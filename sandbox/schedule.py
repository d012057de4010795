"""Scheduled actions: sessions expire, debits, refunds and payouts settle or fail, disputes open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sandbox.account import Account
from sandbox.checkout import expire_overdue
from sandbox.disputes import open_scheduled
from sandbox.payment_intents import fail_debit, settle_debit
from sandbox.payouts import fail_payout, settle_payout
from sandbox.refunds import fail_refund, settle_refund

ACTIONS: Final[dict[str, Callable[[Account, str], None]]] = {
    "open_dispute": open_scheduled,
    "settle_debit": settle_debit,
    "fail_debit": fail_debit,
    "settle_refund": settle_refund,
    "fail_refund": fail_refund,
    "settle_payout": settle_payout,
    "fail_payout": fail_payout,
}
BATCH_SIZE: Final = 200


def run_due_actions(account: Account) -> None:
    """Run the actions that are due, each in the transaction that deletes it, and expire overdue sessions."""
    rows = account.journal.rows(
        "SELECT n, deed, target FROM plans WHERE due <= ? ORDER BY due LIMIT ?",
        (account.clock(), BATCH_SIZE),
    )
    for n, action, target in rows:
        account.journal.write("DELETE FROM plans WHERE n = ?", (n,))
        ACTIONS[action](account, target)
    expire_overdue(account)
