"""Tries of cards, clients and breakers; payments that are suspected, warned of, or whose checkout is used up.

PostgreSQL blocks writes to payments while it builds the indexes: about a second for a million rows.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import BIGINT_KEY, Utc

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_CLOSING_BEFORE = "cancelled AND checkout = 'open'"
_CLOSING = "(cancelled OR exhausted) AND checkout = 'open'"
_WARNED = "warned_at IS NOT NULL"


def upgrade() -> None:
    for name in ("suspected", "exhausted"):
        op.add_column("payments", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("payments", sa.Column("warned_at", Utc(), nullable=True))
    op.drop_index("payments_to_close", "payments")
    op.create_index("payments_to_close", "payments", ["id"], **_where(_CLOSING))
    op.create_index("payments_warned", "payments", ["drive_id", "number"], **_where(_WARNED))
    op.create_index("payments_warned_listed", "payments", ["number"], **_where(_WARNED))
    op.create_table(
        "payment_clients",
        sa.Column("payment_id", sa.String(), primary_key=True),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("made_at", Utc(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("payment_clients_by_age", "payment_clients", ["made_at"])
    op.create_table(
        "card_tries",
        sa.Column("number", BIGINT_KEY, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String(), nullable=False, unique=True),
        sa.Column("payment_id", sa.String(), nullable=False),
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("client", sa.String(), nullable=True),
        sa.Column("card", sa.String(), nullable=True),
        sa.Column("declined", sa.Boolean(), nullable=False),
        sa.Column("small", sa.Boolean(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("card_tries_of_client", "card_tries", ["client", "at"])
    op.create_index("card_tries_by_age", "card_tries", ["at"])
    op.create_table(
        "open_breakers",
        sa.Column("scope", sa.String(), primary_key=True),
        sa.Column("opened_at", Utc(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "refused_clients",
        sa.Column("number", BIGINT_KEY, primary_key=True, autoincrement=True),
        sa.Column("client", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("until", Utc(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("refused_clients_by_end", "refused_clients", ["until"])


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def downgrade() -> None:
    for table in ("refused_clients", "open_breakers", "card_tries", "payment_clients"):
        op.drop_table(table)
    for name in ("payments_warned_listed", "payments_warned", "payments_to_close"):
        op.drop_index(name, "payments")
    op.create_index("payments_to_close", "payments", ["id"], **_where(_CLOSING_BEFORE))
    for name in ("warned_at", "exhausted", "suspected"):
        op.drop_column("payments", name)
