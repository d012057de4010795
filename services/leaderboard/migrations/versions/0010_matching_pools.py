"""Add matching pools.

A process of the previous version skips their events. A pool that changed only then is counted from its next
event on, which carries its whole state: upgrade leaderboard before pools are made.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "matching_pools",
        sa.Column("pool_id", sa.String(), primary_key=True, nullable=False),
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sponsor", sa.String(), nullable=False),
        sa.Column("ratio", sa.String(), nullable=False),
        sa.Column("cap", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", Utc, nullable=False),
        sa.Column("ends_at", Utc, nullable=True),
        sa.Column("ended_at", Utc, nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_index("matching_pools_of_drive", "matching_pools", ["drive_id", "pool_id"])


def downgrade() -> None:
    op.drop_table("matching_pools")
