"""Boards of donors and sources, windows of 24 hours and of one hour.

Their sums are computed by the service (`standings.py`), from nothing. Payments that are stored already have
no source. Which of their donors are named is known only where the donor's display texts are stored: the
others' gifts stand on the donors' board one by one, without a name.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_DONOR_KEYS = """
UPDATE payments SET ranked_version = version, donor_key = CASE WHEN donor_id IS NOT NULL AND EXISTS (
    SELECT 1 FROM words WHERE words.pledge_id = payments.pledge_id AND words.name IS NOT NULL
) THEN donor_id ELSE 'dnr_' || substr(payment_id, 5) END
"""
_NUMBERS = """
UPDATE payments SET number = counted.number
FROM (
    SELECT payment_id, row_number() OVER (PARTITION BY drive_id ORDER BY payment_id) AS number
    FROM payments WHERE counted AND captured - refunded - disputed <> 0
) AS counted
WHERE counted.payment_id = payments.payment_id
"""
_LAST_NUMBERS = """
UPDATE drives SET summed_number = -1, last_number = COALESCE(
    (SELECT MAX(number) FROM payments WHERE payments.drive_id = drives.drive_id), 0
)
"""


def upgrade() -> None:
    _add_columns()
    _create_tables()
    for statement in (_DONOR_KEYS, _NUMBERS, _LAST_NUMBERS):
        op.execute(statement)
    _create_indexes()


def _add_columns() -> None:
    for name in ("last_number", "summed_number", "summed_sequence"):
        op.add_column("drives", _sum(name))
    for name in ("day_from", "day_oldest", "hour_from", "hour_oldest"):
        op.add_column("drives", sa.Column(name, Utc, nullable=True))
    op.add_column("drives", sa.Column("alias_salt", sa.String(), nullable=True))
    op.add_column("payments", sa.Column("donor_key", sa.String(), nullable=True))
    op.add_column("payments", sa.Column("source_key", sa.String(), nullable=True))
    op.add_column("payments", _sum("number"))
    op.add_column("payments", sa.Column("ranked_version", sa.Integer(), nullable=False, server_default="0"))
    for column in (*_sums(""), *_sums("day_"), *_sums("hour_")):
        op.add_column("donors", column)
    op.add_column("donors", sa.Column("reached_at", Utc, nullable=True))
    for column in (*_sums("day_"), *_sums("hour_")):
        op.add_column("creators", column)


def _create_tables() -> None:
    op.create_table(
        "sources",
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        *_sums(""),
        *_sums("day_"),
        *_sums("hour_"),
        sa.Column("reached_at", Utc, nullable=True),
        sa.PrimaryKeyConstraint("drive_id", "source"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "superseded",
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("payment_id", sa.String(), nullable=False),
        sa.Column("creator_id", sa.String(), nullable=True),
        sa.Column("donor_key", sa.String(), nullable=True),
        sa.Column("source_key", sa.String(), nullable=True),
        sa.Column("net", sa.BigInteger(), nullable=False),
        sa.Column("captured_at", Utc, nullable=True),
        sa.PrimaryKeyConstraint("drive_id", "payment_id"),
        sqlite_with_rowid=False,
    )


def _sum(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def _sums(window: str) -> list[sa.Column[int]]:
    return [_sum(f"{window}raised"), _sum(f"{window}donations")]


def _create_indexes() -> None:
    for window in ("", "day_", "hour_"):
        on_board = sa.text(f"{window}raised > 0")
        columns = ["drive_id", f"{window}raised", "reached_at", "donor_id"]
        _create_index("donors", f"donors_by_{window}raised", columns, on_board)
    counted = sa.text("counted AND captured - refunded - disputed <> 0")
    has_source = sa.text("source_key IS NOT NULL")
    unranked = sa.text("ranked_version <> version")
    _create_index("payments", "payments_by_time", ["drive_id", "captured_at", "payment_id"], counted)
    _create_index("payments", "payments_by_number", ["drive_id", "number"])
    _create_index("payments", "payments_by_donor", ["donor_key", "captured_at"])
    _create_index("payments", "payments_by_source", ["drive_id", "source_key", "captured_at"], has_source)
    _create_index("payments", "payments_unranked", ["drive_id"], unranked)


def _create_index(table: str, name: str, columns: list[str], condition: sa.TextClause | None = None) -> None:
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
