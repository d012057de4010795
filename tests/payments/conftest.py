from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engines import fresh_postgres
from tests.payments.books import Books, open_books


@pytest.fixture
def store() -> str:
    """The database of `books`: "sqlite" or "postgresql". A module overrides it to run on both."""
    return "sqlite"


@pytest.fixture
async def books(store: str, tmp_path: Path) -> AsyncIterator[Books]:
    if store == "sqlite":
        async with open_books(tmp_path) as books:
            yield books
    else:
        async with fresh_postgres("services.payments") as url, open_books(tmp_path, url) as books:
            yield books
