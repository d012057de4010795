"""Upgrading a database to the newest of its Alembic migrations."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

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
    known, found = _revisions(scripts), _current_revision(connection)
    if found is not None and found not in known.all:
        raise RuntimeError(f"the database is at revision {found}, which this version does not know")
    if found is None or found != known.newest:
        config = _config(scripts)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


class _Revisions(NamedTuple):
    all: frozenset[str]
    newest: str | None


@cache
def _revisions(scripts: Path) -> _Revisions:
    """Reading them takes ten times as long as finding that a database has them."""
    directory = ScriptDirectory.from_config(_config(scripts))
    every = frozenset(revision.revision for revision in directory.walk_revisions())
    return _Revisions(every, directory.get_current_head())


def _config(scripts: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
