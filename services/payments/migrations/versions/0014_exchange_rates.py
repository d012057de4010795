"""Exchange rates, the currencies that a drive takes, and the rate that is frozen on a payment.

Payments and postings of earlier versions have no rate: they are in their drives' currencies.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import BIGINT_KEY, Utc

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exchange_rates",
        sa.Column("number", BIGINT_KEY, primary_key=True, autoincrement=True),
        sa.Column("source_currency", sa.String(), nullable=False),
        sa.Column("target_currency", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("rate", sa.String(), nullable=False),
        sa.Column("as_of", Utc(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("confirmed", sa.Boolean(), nullable=False),
        sa.Column("refused", sa.String(), nullable=True),
        sa.Column("set_at", Utc(), nullable=False),
        sa.UniqueConstraint("source_currency", "target_currency", "version", name="exchange_rates_of_pair"),
        sqlite_autoincrement=True,
    )
    accepted = sa.text("refused IS NULL")
    op.create_index(
        "exchange_rates_accepted",
        "exchange_rates",
        ["source_currency", "target_currency", "version"],
        sqlite_where=accepted,
        postgresql_where=accepted,
    )
    op.add_column("drives", sa.Column("currencies", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("payments", sa.Column("rate", sa.String(), nullable=True))
    op.add_column("payments", sa.Column("reporting_currency", sa.String(), nullable=True))
    op.add_column("postings", sa.Column("rate", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("postings", "rate")
    op.drop_column("payments", "reporting_currency")
    op.drop_column("payments", "rate")
    op.drop_column("drives", "currencies")
    op.drop_index("exchange_rates_accepted", "exchange_rates")
    op.drop_table("exchange_rates")
