from backbone.database.alembic_env import run
from services.leaderboard.tables import Table

run(Table.metadata)
