from backbone.migrations import run
from services.leaderboard.tables import Table

run(Table.metadata)
