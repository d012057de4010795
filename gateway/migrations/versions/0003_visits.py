"""Views of public pages and of the donate form, by drive, hour and source."""

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "visits",
        sa.Column("drive_id", sa.String, primary_key=True),
        sa.Column("hour", Utc, primary_key=True),
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("seen", sa.BigInteger, nullable=False),
        sa.Column("opened", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("visits_by_hour", "visits", ["hour"])


def downgrade() -> None:
    op.drop_table("visits")
