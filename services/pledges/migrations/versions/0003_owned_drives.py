"""A drive names the partners who may pledge to it; a partner lists its pledges by the page.

Making the index of a million pledges takes seconds on PostgreSQL, in which no pledge is stored:
`CREATE INDEX CONCURRENTLY` does not run in a transaction, and a migration is one. An installation
that cannot wait makes the index by hand before it upgrades; it is then left as it is.
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


def downgrade() -> None:
    op.drop_index("pledges_by_partner", "pledges")
    op.drop_column("drives", "partners")
