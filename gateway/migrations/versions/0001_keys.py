"""Keys, and the gateway's doors."""

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import BIGINT_KEY, Utc

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("sha256", sa.String, nullable=False, unique=True),
        sa.Column("last_four", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("mode", sa.String, nullable=False),
        sa.Column("partner", sa.String, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("origins", sa.JSON, nullable=False),
        sa.Column("name", sa.String),
        sa.Column("made_at", Utc, nullable=False),
        sa.Column("expires_at", Utc),
        sa.Column("revoked_at", Utc),
    )
    op.create_index("ix_keys_partner", "keys", ["partner"])
    op.create_table(
        "outbox",
        sa.Column("number", BIGINT_KEY, primary_key=True, autoincrement=True),
        sa.Column("event_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("topic", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("traceparent", sa.String),
        sa.Column("said_at", Utc, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "inbox",
        sa.Column("group", sa.String, primary_key=True),
        sa.Column("event_id", sa.String, primary_key=True),
        sa.Column("heard_at", Utc, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("inbox_by_age", "inbox", ["heard_at"])
    op.create_table(
        "positions",
        sa.Column("group", sa.String, primary_key=True),
        sa.Column("topic", sa.String, primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("next", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "idempotency",
        sa.Column("scope", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("body_hash", sa.String, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("reply", sa.LargeBinary),
        sa.Column("made_at", Utc, nullable=False),
    )
    op.create_index("idempotency_by_age", "idempotency", ["made_at"])


def downgrade() -> None:
    for table in ("idempotency", "positions", "inbox", "outbox", "keys"):
        op.drop_table(table)
