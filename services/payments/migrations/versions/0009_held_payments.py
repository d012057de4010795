"""Add why and since when a payment is held, who decided about it, and indexes to list payments by.

PostgreSQL blocks writes to payments while it builds the indexes: about a second for a million rows.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import BIGINT_KEY, Utc

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("held_reason", sa.String()),
    ("held_since", Utc()),
    ("released_at", Utc()),
    ("pledged_drive", sa.String()),
    ("pledged_creator", sa.String()),
)
_COUNTED = """
UPDATE payments SET released_at = changed_at, pledged_drive = drive_id, pledged_creator = creator_id
WHERE captured > 0 AND NOT held AND currency = paid_currency AND amount <> captured
"""
"""What counted before amounts were compared goes on to count: as if a person had released it."""
_CAPTURED = "paid_currency IS NOT NULL"
_RETURNED = "status IN ('partly_refunded', 'refunded', 'disputed')"
_INDEXES = (
    ("payments_held", ["drive_id", "number"], "held"),
    ("payments_held_listed", ["number"], "held"),
    ("payments_captured", ["drive_id", "number"], _CAPTURED),
    ("payments_captured_listed", ["number"], _CAPTURED),
    ("payments_returned", ["drive_id", "status", "number"], _RETURNED),
    ("payments_returned_listed", ["status", "number"], _RETURNED),
)


def upgrade() -> None:
    for name, kind in _COLUMNS:
        op.add_column("payments", sa.Column(name, kind, nullable=True))
    op.add_column("drives", sa.Column("closed_at", Utc(), nullable=True))
    op.execute(_COUNTED)
    op.drop_index("payments_held", "payments")
    for name, columns, condition in _INDEXES:
        op.create_index(name, "payments", columns, **_where(condition))
    op.create_table(
        "payment_decisions",
        sa.Column("number", BIGINT_KEY, primary_key=True, autoincrement=True),
        sa.Column("payment_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("partner", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("held_reason", sa.String(), nullable=True),
        sa.Column("from_drive", sa.String(), nullable=True),
        sa.Column("from_creator", sa.String(), nullable=True),
        sa.Column("to_drive", sa.String(), nullable=True),
        sa.Column("to_creator", sa.String(), nullable=True),
        sa.Column("refund_id", sa.String(), nullable=True),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_payment_decisions_payment_id", "payment_decisions", ["payment_id"])


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def downgrade() -> None:
    op.drop_table("payment_decisions")
    for name, _, _ in reversed(_INDEXES):
        op.drop_index(name, "payments")
    op.create_index("payments_held", "payments", ["drive_id"], **_where("held"))
    op.drop_column("drives", "closed_at")
    for name, _ in reversed(_COLUMNS):
        op.drop_column("payments", name)
