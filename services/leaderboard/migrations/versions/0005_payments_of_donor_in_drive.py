"""The index of a donor's payments begins with donor and drive (docs/decisions/0023).

With the donor alone, SQLite preferred the index of a drive's payments by time, and read all of the drive's
payments after a refund.
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
