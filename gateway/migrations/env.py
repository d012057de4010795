from backbone.database.alembic_env import run
from gateway.tables import Table

run(Table.metadata)
