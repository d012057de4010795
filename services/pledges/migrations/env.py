"""Alembic's entry: the migrations of pledges."""

from backbone.database.alembic_env import run
from services.pledges.tables import Table

run(Table.metadata)
