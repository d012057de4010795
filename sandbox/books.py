"""The payment processor's books, a currency: the independent figures that audits compare Ataa's with."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from sandbox.currencies import decimal_string
from sandbox.journal import Journal

FOREIGN: Final = "instr(metadata, '\"ataa_') = 0 AND ifnull(substr(pledge, 1, 4), '') <> 'plg_'"
"""Payments that Ataa did not create: Ataa's carry metadata keys that begin with `ataa_`, or a pledge's id."""

ATAA_ONLY: Final = {
    "payments": f" AND n NOT IN (SELECT n FROM payments WHERE {FOREIGN})",
    "refunds": f" AND payment NOT IN (SELECT id FROM payments WHERE {FOREIGN})",
    "disputes": f" AND payment NOT IN (SELECT id FROM payments WHERE {FOREIGN})",
    "balance_transactions": f" AND payment NOT IN (SELECT id FROM payments WHERE {FOREIGN})",
}
SUMS: Final = {
    "captured": ("payments", "currency", "amount", "status = 'succeeded'"),
    "refunded": ("refunds", "currency", "amount", "status <> 'failed'"),
    "disputed": ("disputes", "settled_in", "gone", "gone <> 0"),
    "fees": ("balance_transactions", "currency", "fee", "payment IS NOT NULL"),
}
"""A figure's table, currency column, summed column and condition."""


def books(journal: Journal, *, with_foreign: bool = False) -> dict[str, dict[str, str]]:
    """`{"USD": {"captured", "refunded", "disputed", "fees", "net"}}` as decimal strings, of Ataa's payments.

    A refund counts from its creation unless it fails. A dispute counts with what it has withdrawn and not
    returned: the full amount while it is open, and after it is lost the part not refunded before. Fees are
    those of the balance transactions. A refund returns none and a dispute may withdraw more than is left, so
    `net` = captured - refunded - disputed - fees can be negative. `with_foreign` includes payments that Ataa
    did not create, which Ataa's books hold too where ATAA_STRIPE_FOREIGN=hold.
    """
    amounts: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys((*SUMS, "net"), 0))
    for name, (table, currency_column, column, condition) in SUMS.items():
        scope = "" if with_foreign else ATAA_ONLY[table]
        sql = f"SELECT {currency_column}, SUM({column}) FROM {table} WHERE {condition}{scope} GROUP BY 1"
        for currency, amount in journal.rows(sql):
            amounts[currency][name] = amount
            amounts[currency]["net"] += amount if name == "captured" else -amount
    return {
        currency: {name: decimal_string(amount, currency) for name, amount in columns.items()}
        for currency, columns in sorted(amounts.items())
    }
