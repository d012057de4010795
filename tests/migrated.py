"""Empty databases for the services of tests, copied from one that was migrated.

Migrating an empty SQLite file takes five times as long as finding that it needs no migration. The migrations
themselves are tested in `tests/stores/test_migrations.py` and by the journeys, which start from nothing.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from backbone.database.database import Database
from tests.ports import FOLDER


def place(package: str, folder: Path, settings: Mapping[str, Any]) -> None:
    """Put the database of a service, for example `services.payments`, into `folder`.

    Not where one is there already, or where `settings` name another.
    """
    name = package.rpartition(".")[2]
    file = folder / f"{name}.db"
    if not settings.get(f"database_url_{name}") and not file.exists():
        shutil.copyfile(_migrated(package), file)


@cache
def _migrated(package: str) -> Path:
    file = Path(tempfile.mkdtemp(dir=os.environ[FOLDER])) / "migrated.db"

    with ThreadPoolExecutor(1) as thread:  # the caller's event loop is running
        thread.submit(asyncio.run, migrate(package, f"sqlite:///{file}")).result()
    return file


async def migrate(package: str, url: str) -> None:
    """Run all migrations of a service in the database at `url`."""
    database = Database(url, import_module(f"{package}.tables").MESSAGING_TABLES)
    await database.migrate(import_module(f"{package}.app").MIGRATIONS)
    await database.close()
