"""Decisions name their drive, so that its newest ones can be listed, and the moderator as the desk was told.

Decisions stored already get the drive of their pledge. One that a process of the previous version stores
during an upgrade has no drive: it is in its message's history, and in no list of a drive.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("drive_id", sa.String(), nullable=True))
    op.add_column("decisions", sa.Column("moderator", sa.String(), nullable=True))
    op.execute(
        "UPDATE decisions SET drive_id ="
        " (SELECT drive_id FROM pledges WHERE pledges.id = decisions.pledge_id)"
    )
    op.create_index(
        "decisions_by_drive", "decisions", ["drive_id", "at", "pledge_id", "version"], if_not_exists=True
    )


def downgrade() -> None:
    op.drop_index("decisions_by_drive", "decisions")
    for name in ("moderator", "drive_id"):
        op.drop_column("decisions", name)
