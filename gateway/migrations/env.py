from backbone.migrations import run
from gateway.tables import Table

run(Table.metadata)
