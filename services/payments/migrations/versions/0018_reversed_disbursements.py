"""Disbursements that came back: when they were reversed, and an index of all that were paid out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

PAID_OUT = "status IN ('approved', 'reversal_requested', 'reversed')"


def upgrade() -> None:
    op.add_column("disbursements", sa.Column("reversed_at", Utc, nullable=True))
    _index_paid(PAID_OUT)


def _index_paid(condition: str) -> None:
    op.drop_index("disbursements_paid", "disbursements")
    which = sa.text(condition)
    op.create_index(
        "disbursements_paid", "disbursements", ["drive_id", "id"], sqlite_where=which, postgresql_where=which
    )


def downgrade() -> None:
    _index_paid("status = 'approved'")
    op.drop_column("disbursements", "reversed_at")
