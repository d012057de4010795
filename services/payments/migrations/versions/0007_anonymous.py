"""Add whether a payment's donor is not named; unknown (NULL) for pledges made before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("payments", sa.Column("anonymous", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("payments", "anonymous")
