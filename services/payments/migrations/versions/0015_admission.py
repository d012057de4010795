"""Keep the state of the checkout queue and each ticket's rate, and find checkouts past their end.

Adding the column does not rewrite the table on either store. PostgreSQL blocks writes to payments while it
builds the index: about a second for a million rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "admission",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("front", sa.BigInteger(), nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("higher", sa.JSON(), nullable=False),
        sa.Column("paused_at", Utc(), nullable=True),
        sa.Column("paused_by", sa.String(), nullable=True),
        sa.Column("paused_note", sa.String(), nullable=True),
        sa.CheckConstraint("id = 1", name="admission_one_row"),
    )
    op.add_column("payments", sa.Column("queue_rate", sa.BigInteger(), nullable=True))
    # The front is just before the first ticket that waits, or at the end of an empty queue.
    op.execute(
        "INSERT INTO admission (id, front, rate, higher) SELECT 1, COALESCE("
        "(SELECT MIN(number) - 1 FROM payments WHERE checkout = 'waiting'),"
        " (SELECT MAX(number) FROM payments), 0), 20000, '[]'"
    )
    hanging = sa.text("checkout = 'open' AND status = 'awaited'")
    op.create_index(
        "payments_hanging", "payments", ["expires_at"], sqlite_where=hanging, postgresql_where=hanging
    )


def downgrade() -> None:
    op.drop_index("payments_hanging", "payments")
    op.drop_column("payments", "queue_rate")
    op.drop_table("admission")
