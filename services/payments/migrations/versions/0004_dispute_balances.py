"""Add the balance amounts of disputes, the time of their report, and the reason of estimates."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FIRST_ASKED_S = 600
"""By then no process of the version before answers questions: it does not know this kind."""

UNPLACED = "payment_id IS NULL AND intent IS NOT NULL"
IN_DOUBT = "doubt IS NOT NULL"


def upgrade() -> None:
    op.add_column("facts", sa.Column("told_at", sa.BigInteger(), nullable=True))
    op.add_column("facts", sa.Column("withdrawn", sa.BigInteger(), nullable=True))
    op.add_column("facts", sa.Column("returned", sa.BigInteger(), nullable=True))
    op.add_column("facts", sa.Column("settled_in", sa.String(), nullable=True))
    op.add_column("facts", sa.Column("torn", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("facts", sa.Column("doubt", sa.String(), nullable=True))
    op.create_index(
        "facts_unplaced", "facts", ["intent"],
        sqlite_where=sa.text(UNPLACED), postgresql_where=sa.text(UNPLACED),
    )  # fmt: skip
    op.create_index(
        "facts_in_doubt", "facts", ["doubt"],
        sqlite_where=sa.text(IN_DOUBT), postgresql_where=sa.text(IN_DOUBT),
    )  # fmt: skip
    ask_about_known_disputes()


def ask_about_known_disputes() -> None:
    """Have every dispute stored so far read from Stripe once: its balance was never kept."""
    ask_at = int((time.time() + FIRST_ASKED_S) * 1_000_000)
    op.execute(
        sa.text(
            "INSERT INTO questions (intent, kind, tries, ask_at)"
            " SELECT DISTINCT intent, 'doubts', 0, CAST(:ask_at AS BIGINT) FROM facts"
            " WHERE kind = 'dispute' AND intent IS NOT NULL"
        ).bindparams(ask_at=ask_at)
    )


def downgrade() -> None:
    op.drop_index("facts_in_doubt", "facts")
    op.drop_index("facts_unplaced", "facts")
    for name in ("doubt", "torn", "settled_in", "returned", "withdrawn", "told_at"):
        op.drop_column("facts", name)
