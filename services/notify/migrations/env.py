"""Alembic's entry: the migrations of notify."""

from backbone.database.alembic_env import run
from services.notify.tables import Table

run(Table.metadata)
