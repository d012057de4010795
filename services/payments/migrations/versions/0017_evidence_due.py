"""Keep until when a dispute's evidence is due.

Disputes stored before have no date until Stripe reports them again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("facts", sa.Column("due_at", Utc(), nullable=True))
    due = sa.text("due_at IS NOT NULL")
    op.create_index("facts_due", "facts", ["due_at"], sqlite_where=due, postgresql_where=due)


def downgrade() -> None:
    op.drop_index("facts_due", "facts")
    op.drop_column("facts", "due_at")
