"""Add `cancelled`: the checkouts of cancelled pledges are expired at Stripe."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("payments", sa.Column("cancelled", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index(
        "payments_to_close",
        "payments",
        ["id"],
        sqlite_where=sa.text("cancelled AND checkout = 'open'"),
        postgresql_where=sa.text("cancelled AND checkout = 'open'"),
    )


def downgrade() -> None:
    op.drop_index("payments_to_close", "payments")
    op.drop_column("payments", "cancelled")
