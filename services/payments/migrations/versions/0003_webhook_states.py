"""Add the retry time of quarantined webhooks, the state of ignored ones, and the position of a listing.

`lanes.holder` and `lanes.until` belonged to a lease and are not read by any version since 0002. A process of
the previous version still writes them with each backfill: while it runs on this schema, its backfills store
the events they find and then fail to store their position. It is replaced within minutes, and the next
process resumes from the last stored position.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def where(condition: str) -> dict[str, Any]:
    """A partial index's condition, on both stores."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.add_column("webhooks", sa.Column("next_try_at", sa.BigInteger(), nullable=True))
    op.execute("UPDATE webhooks SET next_try_at = received_at WHERE state = 2")
    op.create_index("webhooks_set_aside", "webhooks", ["next_try_at"], **where("state = 2"))
    op.create_index("webhooks_set_aside_received", "webhooks", ["received_at"], **where("state = 2"))
    op.create_index("webhooks_set_aside_listed", "webhooks", ["number"], **where("state = 2"))
    op.create_index("webhooks_ignored", "webhooks", ["number"], **where("state = 3"))
    op.add_column("lanes", sa.Column("resume_after", sa.String(), nullable=True))
    op.drop_column("lanes", "holder")
    op.drop_column("lanes", "until")


def downgrade() -> None:
    op.add_column("lanes", sa.Column("until", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("lanes", sa.Column("holder", sa.String(), nullable=False, server_default=""))
    op.drop_column("lanes", "resume_after")
    op.drop_index("webhooks_ignored", "webhooks")
    op.drop_index("webhooks_set_aside_listed", "webhooks")
    op.drop_index("webhooks_set_aside_received", "webhooks")
    op.drop_index("webhooks_set_aside", "webhooks")
    op.drop_column("webhooks", "next_try_at")
