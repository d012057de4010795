"""The sandbox's state: one SQLite file, committed once per iteration of the event loop.

The journal is read and written on the event loop; no other process opens the file. With `synchronous=OFF` in
WAL mode every committed write survives a kill of the process, which is what the sandbox guarantees, but not a
power failure. Without a path, the tables are in a temporary file of SQLite's, deleted with the process.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

log = logging.getLogger("sandbox")
ACK_DELAY_S: Final = 0.02  # acknowledgements, which nobody awaits, are committed together

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sessions (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    status TEXT NOT NULL, amount INTEGER NOT NULL, currency TEXT NOT NULL, payment TEXT,
    wish TEXT NOT NULL, donor TEXT);
CREATE INDEX IF NOT EXISTS sessions_open ON sessions (expires_at) WHERE status = 'open';
CREATE INDEX IF NOT EXISTS sessions_created ON sessions (created);
CREATE INDEX IF NOT EXISTS sessions_payment ON sessions (payment) WHERE payment IS NOT NULL;

CREATE TABLE IF NOT EXISTS payment_links (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, active INTEGER NOT NULL,
    parameters TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS payments (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, status TEXT NOT NULL,
    amount INTEGER NOT NULL, currency TEXT NOT NULL, fee INTEGER NOT NULL, session TEXT NOT NULL,
    pledge TEXT, metadata TEXT NOT NULL, card TEXT NOT NULL, donor TEXT NOT NULL, failure TEXT);
CREATE INDEX IF NOT EXISTS payments_created ON payments (created);
CREATE INDEX IF NOT EXISTS payments_books ON payments (currency, amount, fee) WHERE status = 'succeeded';
CREATE INDEX IF NOT EXISTS payments_foreign ON payments (id)
    WHERE instr(metadata, '"ataa_') = 0 AND ifnull(substr(pledge, 1, 4), '') <> 'plg_';

CREATE TABLE IF NOT EXISTS refunds (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, payment TEXT NOT NULL,
    amount INTEGER NOT NULL, currency TEXT NOT NULL, status TEXT NOT NULL, reason TEXT,
    metadata TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS refunds_payment ON refunds (payment);
CREATE INDEX IF NOT EXISTS refunds_created ON refunds (created);

CREATE TABLE IF NOT EXISTS disputes (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, payment TEXT NOT NULL UNIQUE,
    amount INTEGER NOT NULL, currency TEXT NOT NULL, status TEXT NOT NULL,
    case_type TEXT NOT NULL DEFAULT 'chargeback', settled_in TEXT NOT NULL DEFAULT '',
    moved TEXT NOT NULL DEFAULT '[]', gone INTEGER NOT NULL DEFAULT 0);

CREATE TABLE IF NOT EXISTS balance_transactions (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, type TEXT NOT NULL,
    category TEXT NOT NULL, source TEXT NOT NULL, payment TEXT, amount INTEGER NOT NULL,
    fee INTEGER NOT NULL, currency TEXT NOT NULL, description TEXT, payout TEXT);
CREATE INDEX IF NOT EXISTS balance_created ON balance_transactions (created);
CREATE INDEX IF NOT EXISTS balance_source ON balance_transactions (source);
CREATE INDEX IF NOT EXISTS balance_payout ON balance_transactions (payout) WHERE payout IS NOT NULL;
CREATE INDEX IF NOT EXISTS balance_books ON balance_transactions (currency, fee, payment);

CREATE TABLE IF NOT EXISTS payouts (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, amount INTEGER NOT NULL,
    currency TEXT NOT NULL, status TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS plans (
    n INTEGER PRIMARY KEY, due REAL NOT NULL, deed TEXT NOT NULL, target TEXT NOT NULL);

CREATE TABLE IF NOT EXISTS events (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, type TEXT NOT NULL,
    payment TEXT, session TEXT, pledge TEXT, dropped INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS events_created ON events (created);
CREATE TABLE IF NOT EXISTS acks (
    n INTEGER PRIMARY KEY, event INTEGER NOT NULL, at REAL NOT NULL);

CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, made_at REAL NOT NULL, fingerprint BLOB NOT NULL, status INTEGER NOT NULL,
    body BLOB NOT NULL);
"""

BALANCES: Final = """
ALTER TABLE disputes ADD COLUMN case_type TEXT NOT NULL DEFAULT 'chargeback';
ALTER TABLE disputes ADD COLUMN settled_in TEXT NOT NULL DEFAULT '';
ALTER TABLE disputes ADD COLUMN moved TEXT NOT NULL DEFAULT '[]';
ALTER TABLE disputes ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
UPDATE disputes SET settled_in = currency, gone = CASE status WHEN 'won' THEN 0 ELSE amount END,
    moved = CASE status WHEN 'won' THEN json_array(-amount, amount) ELSE json_array(-amount) END;
"""
"""Migration of older files: adds the balance transactions that their disputes would have had."""

MOVEMENTS: Final = """
INSERT INTO balance_transactions (id, created, type, category, source, payment, amount, fee, currency)
    SELECT 'txn_' || substr(id, 4), created, 'charge', 'charge', 'ch_' || substr(id, 4), id, amount, fee,
        currency FROM payments WHERE status = 'succeeded' ORDER BY n;
INSERT INTO balance_transactions (id, created, type, category, source, payment, amount, fee, currency)
    SELECT 'txn_' || substr(id, 4), created, 'refund', 'refund', id, payment, -amount, 0, currency
        FROM refunds ORDER BY n;
INSERT INTO balance_transactions (id, created, type, category, source, payment, amount, fee, currency)
    SELECT 'txn_' || substr(id, 4) || 'f', created, 'refund_failure', 'refund_failure', id, payment, amount,
        0, currency FROM refunds WHERE status = 'failed' ORDER BY n;
INSERT INTO balance_transactions (id, created, type, category, source, payment, amount, fee, currency)
    SELECT 'txn_' || substr(disputes.id, 4) || key, created, 'adjustment',
        CASE WHEN value < 0 THEN 'dispute' ELSE 'dispute_reversal' END, disputes.id, payment, value, 0,
        settled_in
        FROM disputes, json_each(moved) ORDER BY n, key;
"""
"""Migration of older files: adds the balance transactions of what they contain, disputes without a fee."""


class Journal:
    """The tables, with one transaction per iteration of the event loop.

    Without a `path`, nothing is kept. Raises sqlite3.Error when the file cannot be opened or is in use.
    """

    def __init__(self, path: Path | None) -> None:
        self._connection = sqlite3.connect(str(path) if path else "", isolation_level=None, timeout=0)
        pragmas = "PRAGMA synchronous=OFF; PRAGMA cache_size=-16000;"
        if path:
            pragmas += "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
        self._connection.executescript(pragmas)
        tables = {name for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
        self._connection.executescript(SCHEMA)
        columns = {name for _, name, *_ in self.rows("PRAGMA table_info(disputes)")}
        if "gone" not in columns:
            self._connection.executescript(f"BEGIN; {BALANCES} COMMIT;")
        if "balance_transactions" not in tables:
            self._connection.executescript(f"BEGIN; {MOVEMENTS} COMMIT;")
        self._open = False
        self._waiting: asyncio.Future[None] | None = None
        self._after: list[Callable[[], None]] = []
        self._lazy: asyncio.TimerHandle | None = None

    def write(self, sql: str, values: tuple[Any, ...]) -> int:
        """Execute a change in the current transaction; returns the number of the inserted row."""
        if not self._open:
            self._connection.execute("BEGIN IMMEDIATE")
            self._open = True
        return self._connection.execute(sql, values).lastrowid or 0

    def rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._connection.execute(sql, values).fetchone()
        return found

    def after_commit(self, act: Callable[[], None]) -> None:
        """Call `act` after the writes so far are committed; never if the commit fails."""
        self._after.append(act)

    async def durable(self) -> None:
        """Wait until the writes so far are committed. Raises sqlite3.Error when the commit fails."""
        if not self._open:
            return
        if self._waiting is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            loop.call_soon(self.commit)
        await asyncio.shield(self._waiting)

    def commit_lazily(self) -> None:
        """Commit within ACK_DELAY_S, for writes that nobody awaits."""
        if self._open and self._waiting is None and self._lazy is None:
            self._lazy = asyncio.get_running_loop().call_later(ACK_DELAY_S, self.commit)

    def commit(self) -> None:
        """Commit the transaction, resolve `durable`, then run the `after_commit` callbacks."""
        waiting, self._waiting = self._waiting, None
        after, self._after = self._after, []
        if self._lazy is not None:
            self._lazy.cancel()
            self._lazy = None
        failure = self._end_transaction()
        if waiting is not None and not waiting.done():
            if failure is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(failure)
        if failure is None:
            for act in after:
                act()

    def _end_transaction(self) -> sqlite3.Error | None:
        if not self._open:
            return None
        self._open = False
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            log.error("the journal could not be written: %s", error)
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return error
        return None

    def close(self) -> None:
        self.commit()
        self._connection.close()
