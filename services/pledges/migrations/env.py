"""Alembic's entry: the migrations of pledges."""

from backbone.migrations import run
from services.pledges.tables import Table

run(Table.metadata)
