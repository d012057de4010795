"""Add the progress of each sweep pass, and an index of the open refunds and disputes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OPEN = "(kind = 'refund' AND rank = 1) OR (kind = 'dispute' AND rank = 2)"


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("since", sa.BigInteger(), nullable=True),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("after", sa.String(), nullable=True),
        sa.Column("swept_to", sa.BigInteger(), nullable=True),
        sa.Column("begun_at", sa.BigInteger(), nullable=False),
    )
    op.create_index("facts_open", "facts", ["id"], sqlite_where=sa.text(OPEN), postgresql_where=sa.text(OPEN))
    # Attempts that failed before they were sent had no `done_at`.
    op.execute("UPDATE attempts SET done_at = made_at WHERE done_at IS NULL AND state = 'failed'")
    op.create_index(
        "attempts_done",
        "attempts",
        ["done_at"],
        sqlite_where=sa.text("done_at IS NOT NULL"),
        postgresql_where=sa.text("done_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("attempts_done", "attempts")
    op.drop_index("facts_open", "facts")
    op.drop_table("sweeps")
