"""Add the owner of a drive, and an index of the refunds that are due.

PostgreSQL blocks writes to refunds while it builds the index: milliseconds, since the index is partial.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("drives", sa.Column("partner", sa.String(), nullable=True))
    owed = sa.text("(state = 'unsent' OR (state = 'sent' AND NOT settled))")
    op.create_index(
        "refunds_owed",
        "refunds",
        ["next_try_at"],
        if_not_exists=True,
        sqlite_where=owed,
        postgresql_where=owed,
    )


def downgrade() -> None:
    op.drop_index("refunds_owed", "refunds")
    op.drop_column("drives", "partner")
