"""What happens by itself: sessions run out, banks settle refunds, cardholders dispute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sandbox.account import Account
from sandbox.checkout import expire_overdue
from sandbox.disputes import open_planned
from sandbox.refunds import fail_refund, settle_refund

DEEDS: Final[dict[str, Callable[[Account, str], None]]] = {
    "open_dispute": open_planned,
    "settle_refund": settle_refund,
    "fail_refund": fail_refund,
}
MOST_AT_ONCE: Final = 200


def do_what_is_due(account: Account) -> None:
    """Carry out the plans whose time has come, each in the transaction that forgets it."""
    rows = account.journal.rows(
        "SELECT n, deed, target FROM plans WHERE due <= ? ORDER BY due LIMIT ?",
        (account.clock(), MOST_AT_ONCE),
    )
    for n, deed, target in rows:
        account.journal.write("DELETE FROM plans WHERE n = ?", (n,))
        DEEDS[deed](account, target)
    expire_overdue(account)
