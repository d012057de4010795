from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backbone.database.database import Database
from tests.leaderboard.builders import open_database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path) as opened:
        yield opened
