"""Payments knows who owns a drive, and no periodic statement reads a whole table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("drives", sa.Column("partner", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("drives", "partner")
