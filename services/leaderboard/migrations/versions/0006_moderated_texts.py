"""Display texts have the number of the moderator's decision that they follow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("version", "decided"):
        op.add_column("words", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    for name in ("version", "decided"):
        op.drop_column("words", name)
