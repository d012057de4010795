"""Allow postings that belong to no payment or drive, such as payouts, and index postings by both.

SQLite copies the table. PostgreSQL blocks writes to postings while it builds the indexes: about a second for
a million rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NAMES = ("payment_id", "drive_id")


def upgrade() -> None:
    with op.batch_alter_table("postings", table_kwargs={"sqlite_autoincrement": True}) as postings:
        for name in _NAMES:
            postings.alter_column(name, existing_type=sa.String(), nullable=True)
    op.create_index("ix_postings_payment_id", "postings", ["payment_id"])
    op.create_index("postings_of_drive", "postings", ["drive_id", "number"])
    refuse_changes_on_sqlite()


def refuse_changes_on_sqlite() -> None:
    """Create the triggers again that were dropped with the copied table; PostgreSQL keeps its own."""
    if op.get_bind().dialect.name == "sqlite":
        for deed in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER postings_no_{deed.lower()} BEFORE {deed} ON postings"
                " BEGIN SELECT RAISE(ABORT, 'postings are never changed'); END"
            )


def downgrade() -> None:
    op.drop_index("postings_of_drive", "postings")
    op.drop_index("ix_postings_payment_id", "postings")
    with op.batch_alter_table("postings", table_kwargs={"sqlite_autoincrement": True}) as postings:
        for name in _NAMES:
            postings.alter_column(name, existing_type=sa.String(), nullable=False)
    refuse_changes_on_sqlite()
