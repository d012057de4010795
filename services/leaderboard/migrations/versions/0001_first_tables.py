"""Every table of leaderboard, with those of its doors."""

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import BIGINT_KEY, Utc

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "clearings",
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("net", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("drive_id", "currency"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "creators",
        sa.Column("creator_id", sa.String(), nullable=False),
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("slug", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("team", sa.String(), nullable=True),
        sa.Column("raised", sa.BigInteger(), nullable=False),
        sa.Column("donations", sa.BigInteger(), nullable=False),
        sa.Column("reached_at", Utc, nullable=True),
        sa.PrimaryKeyConstraint("creator_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("creators_by_raised", "creators", ["drive_id", "raised"], unique=False)
    op.create_table(
        "donors",
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("donor_id", sa.String(), nullable=False),
        sa.Column("net", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("drive_id", "donor_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "drive_log",
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("at", Utc, nullable=False),
        sa.Column("payment_id", sa.String(), nullable=True),
        sa.Column("pledge_id", sa.String(), nullable=True),
        sa.Column("creator_id", sa.String(), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=True),
        sa.Column("raised_after", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("drive_id", "epoch", "sequence"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "drives",
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=True),
        sa.Column("slug", sa.String(), nullable=True),
        sa.Column("title", sa.JSON(), nullable=True),
        sa.Column("currency", sa.String(), nullable=True),
        sa.Column("goal", sa.BigInteger(), nullable=False),
        sa.Column("milestones", sa.JSON(), nullable=False),
        sa.Column("test", sa.Boolean(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("head_hash", sa.String(), nullable=False),
        sa.Column("captured", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("disputed", sa.BigInteger(), nullable=False),
        sa.Column("offline", sa.BigInteger(), nullable=False),
        sa.Column("matched", sa.BigInteger(), nullable=False),
        sa.Column("pledged", sa.BigInteger(), nullable=False),
        sa.Column("donations", sa.BigInteger(), nullable=False),
        sa.Column("donors", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", Utc, nullable=True),
        sa.PrimaryKeyConstraint("drive_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("drives_by_slug", "drives", ["slug"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("body_hash", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reply", sa.LargeBinary(), nullable=True),
        sa.Column("made_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("scope", "key"),
    )
    op.create_index("idempotency_by_age", "idempotency", ["made_at"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("group", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("heard_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("group", "event_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("inbox_by_age", "inbox", ["heard_at"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("number", BIGINT_KEY, autoincrement=True, nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("traceparent", sa.String(), nullable=True),
        sa.Column("said_at", Utc, nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "paces",
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("second", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("donations", sa.BigInteger(), nullable=False),
        sa.Column("raised", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("drive_id", "second"),
        sqlite_with_rowid=False,
    )
    op.create_index("paces_by_age", "paces", ["second"], unique=False)
    op.create_table(
        "payments",
        sa.Column("payment_id", sa.String(), nullable=False),
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("pledge_id", sa.String(), nullable=True),
        sa.Column("creator_id", sa.String(), nullable=True),
        sa.Column("donor_id", sa.String(), nullable=True),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("captured", sa.BigInteger(), nullable=False),
        sa.Column("refunded", sa.BigInteger(), nullable=False),
        sa.Column("disputed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("payment_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pledges",
        sa.Column("pledge_id", sa.String(), nullable=False),
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("paid", sa.Boolean(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pledge_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "positions",
        sa.Column("group", sa.String(), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("group", "topic", "partition"),
    )
    op.create_table(
        "words",
        sa.Column("pledge_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("message", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("pledge_id"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("words")
    op.drop_table("positions")
    op.drop_table("pledges")
    op.drop_table("payments")
    op.drop_index("paces_by_age", table_name="paces")
    op.drop_table("paces")
    op.drop_table("outbox")
    op.drop_index("inbox_by_age", table_name="inbox")
    op.drop_table("inbox")
    op.drop_index("idempotency_by_age", table_name="idempotency")
    op.drop_table("idempotency")
    op.drop_index("drives_by_slug", table_name="drives")
    op.drop_table("drives")
    op.drop_table("drive_log")
    op.drop_table("donors")
    op.drop_index("creators_by_raised", table_name="creators")
    op.drop_table("creators")
    op.drop_table("clearings")
