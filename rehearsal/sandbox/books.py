"""What the processor holds, per currency: the outside witness for every audit."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from rehearsal.sandbox.currencies import decimal_string
from rehearsal.sandbox.journal import Journal

SUMS: Final = {
    "captured": "SELECT currency, SUM(amount) FROM payments WHERE status = 'succeeded' GROUP BY currency",
    "refunded": "SELECT currency, SUM(amount) FROM refunds WHERE status <> 'failed' GROUP BY currency",
    "disputed": "SELECT currency, SUM(amount) FROM disputes WHERE status <> 'won' GROUP BY currency",
    "fees": "SELECT currency, SUM(fee) FROM payments WHERE status = 'succeeded' GROUP BY currency",
}


def books(journal: Journal) -> dict[str, dict[str, str]]:
    """`{"USD": {"captured", "refunded", "disputed", "fees", "net"}}` as decimal strings.

    A refund counts from pending until it fails, a dispute while open or lost; fees are never given back, so
    `net` = captured - refunded - disputed - fees can be below zero.
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
