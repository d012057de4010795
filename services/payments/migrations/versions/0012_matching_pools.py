"""Add matching pools and what they give to payments.

A process of the previous version matches no gifts. What it counts while it still runs is not matched later.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "matching_pools",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sponsor", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("ratio", sa.Integer(), nullable=False),
        sa.Column("per_gift_cap", sa.BigInteger(), nullable=True),
        sa.Column("creator_id", sa.String(), nullable=True),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("made_by", sa.String(), nullable=False),
        sa.Column("ended_by", sa.String(), nullable=True),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("used >= 0 AND used <= cap", name="matching_pools_within_cap"),
        sqlite_autoincrement=True,
    )
    op.create_index("matching_pools_of_drive", "matching_pools", ["drive_id", "number"])
    op.create_table(
        "matching_allocations",
        sa.Column("payment_id", sa.String(), primary_key=True, nullable=False),
        sa.Column("pool_id", sa.String(), primary_key=True, nullable=False),
        sa.Column("original", sa.BigInteger(), nullable=False),
        sa.Column("base", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("postings", sa.Integer(), nullable=False),
        sa.CheckConstraint("units >= 0 AND units <= original", name="matching_allocations_bounds"),
    )
    op.create_table(
        "matching_counted_before",
        sa.Column("payment_id", sa.String(), primary_key=True, nullable=False),
        sa.Column("drive_id", sa.String(), primary_key=True, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("matching_counted_before")
    op.drop_table("matching_allocations")
    op.drop_table("matching_pools")
