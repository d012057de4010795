"""Every service's migrations, up from empty and from each earlier version, on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from backbone.database.database import Database
from tests.engines import fresh_postgres

SERVICES: Final = (
    "services.pledges",
    "services.payments",
    "services.leaderboard",
    "services.notify",
    "gateway",
)


def scripts(service: str) -> Path:
    package = import_module(service)
    return Path(str(package.__file__)).parent / "migrations"


def config(service: str, connection: Connection | None = None) -> Config:
    found = Config(attributes={"connection": connection})
    found.set_main_option("script_location", str(scripts(service)))
    found.set_main_option("path_separator", "os")
    return found


def versions() -> list[tuple[str, str]]:
    """Each service with each version it ever had."""
    return [
        (service, revision.revision)
        for service in SERVICES
        for revision in ScriptDirectory.from_config(config(service)).walk_revisions()
    ]


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'service.db'}"
    else:
        async with fresh_postgres() as fresh:
            yield fresh


async def differences(database: Database, service: str) -> list[Any]:
    """What Alembic would still change."""
    import_module(f"{service}.app")  # and with it every package that declares tables
    tables = import_module(f"{service}.tables").Table.metadata

    def compare(connection: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(connection), tables))

    return await database.read_whole(lambda plain: compare(plain.connection))


@pytest.mark.parametrize("service", SERVICES)
async def test_migrations_from_empty_create_the_declared_tables_and_are_idempotent(
    service: str, url: str
) -> None:
    database = Database(url, import_module(f"{service}.tables").MESSAGING_TABLES)
    await database.migrate(scripts(service))
    await database.migrate(scripts(service))
    assert await differences(database, service) == []
    await database.close()


@pytest.mark.parametrize(("service", "version"), versions())
async def test_migrations_upgrade_every_earlier_version(service: str, version: str, url: str) -> None:
    database = Database(url, import_module(f"{service}.tables").MESSAGING_TABLES)
    async with database.transaction() as session:
        await session.run_sync(lambda plain: command.upgrade(config(service, plain.connection), version))
    await database.migrate(scripts(service))
    assert await differences(database, service) == []
    await database.close()
