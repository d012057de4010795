"""Which payments are zakat, and which fund a disbursement is paid from. What was there before is general."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("payments", sa.Column("zakat", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("disbursements", sa.Column("fund", sa.String(), nullable=False, server_default="general"))


def downgrade() -> None:
    op.drop_column("disbursements", "fund")
    op.drop_column("payments", "zakat")
