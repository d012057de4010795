"""What moderators put on the screens: the pinned message of a drive, and the state of its alerts.

A pledge names the payment that made it paid, which a pinned message needs; those stored already get it here.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_PAYMENTS = """
UPDATE pledges SET payment_id = paying.payment_id
FROM (
    SELECT pledge_id, MIN(payment_id) AS payment_id FROM payments
    WHERE pledge_id IS NOT NULL AND captured > 0 GROUP BY pledge_id
) AS paying
WHERE paying.pledge_id = pledges.pledge_id
"""


def upgrade() -> None:
    op.add_column("pledges", sa.Column("payment_id", sa.String(), nullable=True))
    op.execute(_PAYMENTS)
    # Drives are locked last: processes of the previous version read them while the pledges are updated.
    op.add_column("drives", sa.Column("alerts", sa.JSON(), nullable=True))
    op.add_column("drives", sa.Column("alerts_version", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("words", sa.Column("drive_id", sa.String(), nullable=True))
    op.add_column("words", sa.Column("pinned_at", Utc, nullable=True))
    op.add_column("words", sa.Column("pin_version", sa.Integer(), nullable=False, server_default="0"))
    pinned = sa.text("pinned_at IS NOT NULL")
    op.create_index(
        "words_pinned", "words", ["drive_id", "pinned_at"], sqlite_where=pinned, postgresql_where=pinned
    )


def downgrade() -> None:
    op.drop_index("words_pinned", "words")
    for name in ("pin_version", "pinned_at", "drive_id"):
        op.drop_column("words", name)
    op.drop_column("pledges", "payment_id")
    for name in ("alerts_version", "alerts"):
        op.drop_column("drives", name)
