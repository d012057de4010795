"""Alembic's environment: the tables of payments, in the transaction that `Database.migrate` opened."""

from __future__ import annotations

from backbone.database.alembic_env import run
from services.payments.tables import Table

run(Table.metadata)
