"""What the processor holds, per currency: the outside witness for every audit."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from rehearsal.sandbox.currencies import decimal_string
from rehearsal.sandbox.journal import Journal

SUMS: Final = {
    "captured": "SELECT currency, SUM(amount) FROM payments WHERE status = 'succeeded' GROUP BY currency",
    "refunded": "SELECT currency, SUM(amount) FROM refunds WHERE status <> 'failed' GROUP BY currency",
    "disputed": "SELECT settled_in, SUM(gone) FROM disputes WHERE gone <> 0 GROUP BY settled_in",
    "fees": "SELECT currency, SUM(fee) FROM payments WHERE status = 'succeeded' GROUP BY currency",
}


def books(journal: Journal) -> dict[str, dict[str, str]]:
    """`{"USD": {"captured", "refunded", "disputed", "fees", "net"}}` as decimal strings.

    A refund counts from pending until it fails, of a dispute what was withdrawn and not returned: all of it
    while it is open, and after it is lost what had not been refunded before. Fees are never given back, and
    a dispute may withdraw more than is left, so `net` = captured - refunded - disputed - fees can be below
    zero.
    """
    amounts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys((*SUMS, "net"), 0))
    for name, sql in SUMS.items():
        for currency, amount in journal.rows(sql):
            amounts[currency][name] = amount
            amounts[currency]["net"] += amount if name == "captured" else -amount
    return {
        currency: {name: decimal_string(amount, currency) for name, amount in columns.items()}
        for currency, columns in sorted(amounts.items())
    }
