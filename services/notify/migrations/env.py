"""Alembic's entry: the migrations of notify."""

from backbone.migrations import run
from services.notify.tables import Table

run(Table.metadata)
