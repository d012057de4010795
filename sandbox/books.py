"""What the processor holds, per currency: the outside witness for every audit."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from sandbox.currencies import decimal_string
from sandbox.journal import Journal

FOREIGN: Final = "instr(metadata, '\"ataa_') = 0 AND ifnull(substr(pledge, 1, 4), '') <> 'plg_'"
"""Payments of other business: those of Ataa carry metadata that begins with `ataa_`, or a pledge's id."""

OURS: Final = {
    "payments": f" AND n NOT IN (SELECT n FROM payments WHERE {FOREIGN})",
    "refunds": f" AND payment NOT IN (SELECT id FROM payments WHERE {FOREIGN})",
    "disputes": f" AND payment NOT IN (SELECT id FROM payments WHERE {FOREIGN})",
}
SUMS: Final = {
    "captured": ("payments", "currency", "amount", "status = 'succeeded'"),
    "refunded": ("refunds", "currency", "amount", "status <> 'failed'"),
    "disputed": ("disputes", "settled_in", "gone", "gone <> 0"),
    "fees": ("payments", "currency", "fee", "status = 'succeeded'"),
}
"""Of which table, in the currency of which column, what is added up, under which condition."""


def books(journal: Journal, *, with_foreign: bool = False) -> dict[str, dict[str, str]]:
    """`{"USD": {"captured", "refunded", "disputed", "fees", "net"}}` as decimal strings, of Ataa's payments.

    A refund counts from pending until it fails, of a dispute what was withdrawn and not returned: all of it
    while it is open, and after it is lost what had not been refunded before. Fees are never given back, and
    a dispute may withdraw more than is left, so `net` = captured - refunded - disputed - fees can be below
    zero. `with_foreign` adds the payments of other business, which an account of Ataa's own
    (ATAA_STRIPE_FOREIGN=hold) has in its books too.
    """
    amounts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys((*SUMS, "net"), 0))
    for name, (table, currency_column, column, condition) in SUMS.items():
        whose = "" if with_foreign else OURS[table]
        sql = f"SELECT {currency_column}, SUM({column}) FROM {table} WHERE {condition}{whose} GROUP BY 1"
        for currency, amount in journal.rows(sql):
            amounts[currency][name] = amount
            amounts[currency]["net"] += amount if name == "captured" else -amount
    return {
        currency: {name: decimal_string(amount, currency) for name, amount in columns.items()}
        for currency, columns in sorted(amounts.items())
    }
