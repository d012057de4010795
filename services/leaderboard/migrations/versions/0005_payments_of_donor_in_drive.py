"""The index of a donor's payments begins with donor and drive; boards are summed anew (docs/decisions/0025).

With the donor alone, SQLite preferred the index of a drive's payments by time, and read all of the drive's
payments after a refund. Sums of earlier versions may contain the moment of a refunded payment, or a state
twice.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "payments_of_donor_in_drive", "payments", ["donor_id", "drive_id", "captured_at"], if_not_exists=True
    )
    op.drop_index("payments_of_donor", "payments", if_exists=True)
    op.execute("UPDATE drives SET summed_number = -1, summed_sequence = -1 WHERE last_number > 0")
