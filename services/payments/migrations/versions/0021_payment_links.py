"""Prepared Payment Links, for pledges whose wait for a checkout would be long."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "payment_links",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("parameters", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("link_id", sa.String(), nullable=True),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("used_until", Utc(), nullable=True),
        sa.Column("next_try_at", Utc(), nullable=False),
        sa.Column("sent_since", Utc(), nullable=False),
        sa.UniqueConstraint("drive_id", "currency", "amount", name="payment_links_of_drive"),
    )
    unsettled = sa.text("state IN ('preparing', 'closing', 'reopening')")
    op.create_index(
        "payment_links_unsettled",
        "payment_links",
        ["next_try_at"],
        sqlite_where=unsettled,
        postgresql_where=unsettled,
    )


def downgrade() -> None:
    op.drop_table("payment_links")
