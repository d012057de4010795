"""Payments are found by their donor, no longer by their row of the donors' board (docs/decisions/0023).

The ids of unnamed rows are random, so an index of them was written at a random place for every payment.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("superseded", sa.Column("donor_id", sa.String(), nullable=True))
    op.drop_index("payments_by_donor", "payments", if_exists=True)
