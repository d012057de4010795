"""A pledge says whether it is given as zakat or as sadaqah."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pledges", sa.Column("purpose", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("pledges", "purpose")
