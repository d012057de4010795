"""The data directory holds people's addresses, whoever made it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from embedded.data_dir import DataDir


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The usual one before, and again after."""
    usual = os.umask(0o022)
    yield
    os.umask(usual)


def test_what_is_kept_in_somebody_elses_directory_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    data = DataDir(tmp_path)
    with closing(sqlite3.connect(data.path / "pledges.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE words (email TEXT)")
        modes = {each.name: each.stat().st_mode & 0o077 for each in data.path.iterdir()}
    assert "pledges.db-wal" in modes
    assert set(modes.values()) == {0}
