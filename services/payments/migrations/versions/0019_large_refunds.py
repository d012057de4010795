"""Refunds that a second key decides, and an index of the refunds whose amounts are reserved."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "large_refunds",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("payment_id", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("made_at", Utc, nullable=False),
    )
    op.create_index("large_refunds_of_payment", "large_refunds", ["payment_id"])
    _index("large_refunds_to_decide", "large_refunds", ["id", "made_at"], "status = 'pending'")
    _index("refunds_reserved", "refunds", ["id"], "state IN ('unsent', 'unapproved')")
    op.drop_index("refunds_unsent", "refunds")


def _index(name: str, table: str, columns: list[str], condition: str) -> None:
    which = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=which, postgresql_where=which)


def downgrade() -> None:
    """Refunds that were not decided have failed: an earlier version would neither send nor reserve them."""
    op.execute("UPDATE refunds SET state = 'failed', reason = 'not decided' WHERE state = 'unapproved'")
    _index("refunds_unsent", "refunds", ["id"], "state = 'unsent'")
    op.drop_index("refunds_reserved", "refunds")
    op.drop_table("large_refunds")
