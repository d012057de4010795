"""A drive names the partners who may pledge to it; lists of pledges are read from indexes.

While PostgreSQL makes an index, nothing is stored in its table: about a second for 300,000 pledges.
`CREATE INDEX CONCURRENTLY` would not block, but does not run in a transaction, as migrations do. An
installation that cannot pause makes the three indexes by hand, concurrently and under these names,
before it upgrades; they are then left as they are.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("drives", sa.Column("partners", sa.JSON(), nullable=True))
    op.create_index("pledges_by_partner", "pledges", ["partner", "id"], if_not_exists=True)
    op.create_index("pledges_by_drive", "pledges", ["drive_id", "partner", "id"], if_not_exists=True)
    settled = sa.text("status NOT IN ('open', 'paid')")
    op.create_index(
        "pledges_by_status",
        "pledges",
        ["partner", "status", "id"],
        if_not_exists=True,
        sqlite_where=settled,
        postgresql_where=settled,
    )


def downgrade() -> None:
    for name in ("pledges_by_partner", "pledges_by_drive", "pledges_by_status"):
        op.drop_index(name, "pledges")
    op.drop_column("drives", "partners")
