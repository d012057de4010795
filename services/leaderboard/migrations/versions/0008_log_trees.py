"""The drives' logs as Merkle trees, computed from the rows after they are committed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_trees",
        sa.Column("drive_id", sa.String(), primary_key=True),
        sa.Column("epoch", sa.Integer(), primary_key=True),
        sa.Column("tiled", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "log_tiles",
        sa.Column("drive_id", sa.String(), primary_key=True),
        sa.Column("epoch", sa.Integer(), primary_key=True),
        sa.Column("level", sa.Integer(), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "logged_gifts",
        sa.Column("pledge_id", sa.String(), primary_key=True),
        sa.Column("drive_id", sa.String(), primary_key=True),
        sa.Column("epoch", sa.Integer(), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for name in ("logged_gifts", "log_tiles", "log_trees"):
        op.drop_table(name)
