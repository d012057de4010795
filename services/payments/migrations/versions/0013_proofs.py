"""Keep the newest audit of each drive, and find a drive's paid payments by their ids.

PostgreSQL blocks writes to payments while it builds the index: about a second for a million rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "proofs",
        sa.Column("drive_id", sa.String(), primary_key=True),
        sa.Column("asked_at", Utc(), nullable=True),
        sa.Column("made_at", Utc(), nullable=True),
        sa.Column("took_ms", sa.Integer(), nullable=False),
        sa.Column("reply", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("differences", sa.Integer(), nullable=False),
        sa.Column("minor_units", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=True),
    )
    asked, paid = sa.text("asked_at IS NOT NULL"), sa.text("paid_currency IS NOT NULL")
    op.create_index("proofs_asked", "proofs", ["asked_at"], sqlite_where=asked, postgresql_where=asked)
    op.create_index("payments_paid", "payments", ["drive_id", "id"], sqlite_where=paid, postgresql_where=paid)


def downgrade() -> None:
    op.drop_index("payments_paid", "payments")
    op.drop_table("proofs")
