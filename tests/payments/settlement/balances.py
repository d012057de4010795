"""Balances of ledger accounts, read from payments' SQLite file."""

from __future__ import annotations

import contextlib
import sqlite3
from decimal import Decimal
from pathlib import Path

from backbone.money import decimal_string


def account_balances(folder: Path, account: str) -> dict[str, Decimal]:
    """Debits less credits of an account by currency; empty without postings."""
    sql = (
        "SELECT currency, SUM(CASE WHEN debit = :a THEN units ELSE -units END) FROM postings"
        " WHERE debit = :a OR credit = :a GROUP BY currency"
    )
    with contextlib.closing(sqlite3.connect(folder / "payments.db", timeout=10)) as database:
        rows = database.execute(sql, {"a": account}).fetchall()
    return {currency: Decimal(decimal_string(units, currency)) for currency, units in rows}
