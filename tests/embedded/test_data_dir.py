"""The data directory holds personal data, so its files are private, whoever created it."""

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
    """Restores the process's umask after the test."""
    usual = os.umask(0o022)
    yield
    os.umask(usual)


def test_files_in_a_shared_directory_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    data = DataDir(tmp_path)
    with closing(sqlite3.connect(data.path / "pledges.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE donors (email TEXT)")
        modes = {each.name: each.stat().st_mode & 0o077 for each in data.path.iterdir()}
    assert "pledges.db-wal" in modes
    assert set(modes.values()) == {0}
