"""Open moderation desks, which moderators of every gateway process see."""

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "desks",
        sa.Column("drive", sa.String, primary_key=True),
        sa.Column("desk", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("looking", sa.String, nullable=False),
        sa.Column("seen_at", Utc, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("desks_by_age", "desks", ["seen_at"])


def downgrade() -> None:
    op.drop_table("desks")
