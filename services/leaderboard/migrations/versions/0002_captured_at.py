"""When each payment was captured, from which a creator's place among equals is read."""

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import Utc

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The log has the moment of every gift counted so far; both are stored by the same type.
_CAPTURED_AT = """
UPDATE payments SET captured_at = counted.at
FROM (
    SELECT payment_id, min(at) AS at FROM drive_log
    WHERE type = 'donation.counted' AND payment_id IS NOT NULL GROUP BY payment_id
) AS counted
WHERE counted.payment_id = payments.payment_id
"""

_REACHED_AT = """
UPDATE creators SET reached_at = (
    SELECT max(captured_at) FROM payments
    WHERE payments.creator_id = creators.creator_id AND counted AND captured - refunded - disputed > 0
)
"""


def upgrade() -> None:
    op.add_column("payments", sa.Column("captured_at", Utc, nullable=True))
    op.create_index("payments_by_creator", "payments", ["creator_id", "captured_at"], unique=False)
    op.execute(_CAPTURED_AT)
    op.execute(_REACHED_AT)
