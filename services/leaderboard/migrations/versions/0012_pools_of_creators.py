"""The creator whose gifts alone a matching pool matches.

Stored pools have none until their next event, and are shown as before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("matching_pools", sa.Column("creator_id", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("matching_pools", "creator_id")
