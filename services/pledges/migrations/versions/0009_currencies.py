"""The currencies that a drive takes, exchange rates, and what a pledge is worth in its drive's currency."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exchange_rates",
        sa.Column("source_currency", sa.String(), primary_key=True),
        sa.Column("target_currency", sa.String(), primary_key=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rate", sa.String(), nullable=False),
        sa.Column("as_of", Utc(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.add_column("drives", sa.Column("currencies", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("pledges", sa.Column("reporting_amount", sa.BigInteger(), nullable=True))
    op.add_column("pledges", sa.Column("reporting_currency", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("pledges", "reporting_currency")
    op.drop_column("pledges", "reporting_amount")
    op.drop_column("drives", "currencies")
    op.drop_table("exchange_rates")
