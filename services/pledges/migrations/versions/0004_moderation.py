"""Messages are moderated: a setting of the drive, a state of each message, and the decisions.

Names and messages that are stored already become approved: they are shown as before, and a moderator can hide
them. A process of the previous version goes on to store rows without a state; they are shown as before too.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("drives", sa.Column("moderation", sa.JSON(), nullable=True))
    op.add_column("words", sa.Column("drive_id", sa.String(), nullable=True))
    op.add_column("words", sa.Column("state", sa.String(), nullable=True))
    op.add_column("words", sa.Column("held", sa.JSON(), nullable=True))
    op.add_column("words", sa.Column("decided", sa.Integer(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE words SET state = 'approved',"
        " drive_id = (SELECT drive_id FROM pledges WHERE pledges.id = words.pledge_id)"
        " WHERE message IS NOT NULL OR (name IS NOT NULL AND NOT anonymous)"
    )
    moderated = sa.text("state IS NOT NULL")
    op.create_index(
        "words_by_state",
        "words",
        ["drive_id", "state", "pledge_id"],
        sqlite_where=moderated,
        postgresql_where=moderated,
        if_not_exists=True,
    )
    op.create_table(
        "decisions",
        sa.Column("pledge_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("partner", sa.String(), nullable=False),
        sa.Column("from_state", sa.String(), nullable=False),
        sa.Column("to_state", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["pledge_id"], ["pledges.id"]),
        sa.PrimaryKeyConstraint("pledge_id", "version"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("decisions")
    op.drop_index("words_by_state", "words")
    for name in ("decided", "held", "state", "drive_id"):
        op.drop_column("words", name)
    op.drop_column("drives", "moderation")
