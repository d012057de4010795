"""Upgrading a database to the newest of its Alembic migrations."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def upgrade(connection: Connection, scripts: Path) -> None:
    """Run the migrations in `scripts` that are not yet in the database, on `connection`.

    Raises RuntimeError where the database is at a revision that `scripts` does not contain: a newer version
    of the service has migrated it.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {revision.revision for revision in ScriptDirectory.from_config(config).walk_revisions()}
    found = _current_revision(connection)
    if found is not None and found not in known:
        raise RuntimeError(f"the database is at revision {found}, which this version does not know")
    command.upgrade(config, "head")


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
