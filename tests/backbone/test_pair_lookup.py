"""Lookup by pairs of values: exactly those pairs, on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, MetaData, String, Table, create_engine, insert, select
from sqlalchemy.pool import StaticPool

from backbone.database.database import Database
from backbone.database.messaging_tables import messaging_tables
from backbone.database.pair_lookup import MAX_GROUPS, PairLookup, grouped
from tests.backbone.both_stores import STORES, database_on

METADATA: Final = MetaData()
MESSAGING_TABLES: Final = messaging_tables(METADATA)
THINGS: Final = Table(
    "things", METADATA, Column("owner", String, primary_key=True), Column("name", String, primary_key=True)
)
LOOKUP: Final = PairLookup(select(THINGS), THINGS.c.owner, THINGS.c.name)
EVERY: Final = [(f"o{owner}", f"n{name}") for owner in range(MAX_GROUPS + 20) for name in range(3)]

STORED: Final = {("a", "x"), ("a", "y"), ("b", "x"), ("c", "z")}
ENGINE: Final = create_engine("sqlite://", poolclass=StaticPool)
with ENGINE.begin() as _connection:
    METADATA.create_all(_connection)
    _connection.execute(insert(THINGS), [{"owner": owner, "name": name} for owner, name in sorted(STORED)])


@pytest.fixture(params=STORES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with database_on(request.param, tmp_path, METADATA, MESSAGING_TABLES) as database:
        async with database.transaction() as session:
            await session.execute(insert(THINGS), [{"owner": owner, "name": name} for owner, name in EVERY])
        yield database


@pytest.mark.parametrize(
    "pairs",
    [
        [], [("o1", "n1")], [("o1", "n1"), ("o1", "n1")], [("o1", "n1"), ("o2", "n2")],
        [("o1", "nobody"), ("nobody", "n1"), ("o3", "n0")], EVERY, EVERY[::2],
    ],
)  # fmt: skip
async def test_find_returns_exactly_the_given_pairs(database: Database, pairs: list[tuple[str, str]]) -> None:
    async with database.reading() as session:
        found = await session.run_sync(lambda plain: list(LOOKUP.find(plain.connection, pairs)))
    assert sorted(map(tuple, found)) == sorted(set(pairs) & set(EVERY))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=30))
def test_find_returns_each_pair_once(pairs: list[tuple[str, str]]) -> None:
    with ENGINE.connect() as connection:
        assert sorted(map(tuple, LOOKUP.find(connection, pairs))) == sorted(set(pairs) & STORED)
    assert [(one, other) for one, others in grouped(pairs).items() for other in others] == sorted(set(pairs))
