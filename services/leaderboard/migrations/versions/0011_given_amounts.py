"""What was given in another currency than the drive's, beside what it counts as.

Rows of earlier versions have none: their amounts are in their drives' currencies.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

GIVEN = ("given_captured", "given_refunded", "given_disputed")


def upgrade() -> None:
    for name in GIVEN:
        op.add_column("payments", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("drive_log", sa.Column("given_amount", sa.BigInteger(), nullable=True))
    op.add_column("drive_log", sa.Column("given_currency", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("drive_log", "given_currency")
    op.drop_column("drive_log", "given_amount")
    for name in GIVEN:
        op.drop_column("payments", name)
