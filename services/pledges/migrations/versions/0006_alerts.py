"""Moderators pause, skip and replay the alerts of a drive's overlays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("skip", sa.JSON(), nullable=True),
        sa.Column("replay", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(["drive_id"], ["drives.id"]),
        sa.PrimaryKeyConstraint("drive_id"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("alerts")
