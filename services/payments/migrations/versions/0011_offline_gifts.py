"""Offline gifts, approvals by two keys, and the beneficiaries of drives."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backbone.database.columns import BIGINT_KEY, Utc

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("payments", sa.Column("offline", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("drives", sa.Column("beneficiaries", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "approvals",
        sa.Column("number", BIGINT_KEY, primary_key=True, autoincrement=True),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("partner", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("at", Utc, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("approvals_of_subject", "approvals", ["subject", "number"])
    _create_proposals(
        "offline_gifts",
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("received_at", Utc, nullable=False),
        sa.Column("evidence", sa.String(), nullable=False),
        sa.Column("creator_id", sa.String(), nullable=True),
        sa.Column("payment_id", sa.String(), nullable=True, unique=True),
    )
    _create_proposals(
        "contributions",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("evidence", sa.String(), nullable=False),
        sa.Column("creator_id", sa.String(), nullable=True),
    )
    _create_proposals(
        "disbursements",
        sa.Column("beneficiary", sa.String(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("paid_at", Utc, nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("evidence", sa.String(), nullable=False),
    )
    approved = sa.text("status = 'approved'")
    op.create_index(
        "disbursements_paid",
        "disbursements",
        ["drive_id", "id"],
        sqlite_where=approved,
        postgresql_where=approved,
    )
    op.create_index(
        "contributions_summed",
        "contributions",
        ["drive_id", "kind", "unit"],
        sqlite_where=approved,
        postgresql_where=approved,
    )


def _create_proposals(name: str, *columns: sa.Column[object]) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("drive_id", sa.String(), nullable=False),
        sa.Column("partner", sa.String(), nullable=True),
        sa.Column("test", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("made_at", Utc, nullable=False),
        *columns,
    )
    op.create_index(f"{name}_of_drive", name, ["drive_id", "id"])
    op.create_index(f"{name}_of_partner", name, ["partner", "id"])


def downgrade() -> None:
    op.drop_table("disbursements")
    op.drop_table("contributions")
    op.drop_table("offline_gifts")
    op.drop_table("approvals")
    op.drop_column("drives", "beneficiaries")
    op.drop_column("payments", "offline")
