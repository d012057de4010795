"""Clients are named by a hash whose key is gone after two days."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from backbone.clock import FrozenClock
from backbone.database.database import Database
from gateway.access.limits import network_of
from gateway.app import MIGRATIONS
from gateway.screening.client_groups import ClientGroups
from gateway.tables import MESSAGING_TABLES
from tests.engines import fresh_postgres


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'gateway.db'}", MESSAGING_TABLES)
        await database.migrate(MIGRATIONS)
        yield database
        await database.close()
        return
    async with fresh_postgres() as url:
        database = Database(url, MESSAGING_TABLES)
        await database.migrate(MIGRATIONS)
        yield database
        await database.close()


async def test_gateways_name_a_client_alike_and_differently_each_day(database: Database) -> None:
    clock = FrozenClock()
    one, other = ClientGroups(database, clock), ClientGroups(database, clock)
    await one.refresh()
    await other.refresh()
    (today,) = one.names("81.2.69.142")
    assert other.names("81.2.69.142") == [today]
    assert one.names("81.2.69.143") != [today]
    assert "81" not in today or len(today) == 20
    clock.move(86_400)
    tomorrow, before = one.names("81.2.69.142")  # its key was made a day ahead
    assert before == today != tomorrow


async def test_key_is_deleted_after_the_day_that_follows(database: Database) -> None:
    clock = FrozenClock()
    groups = ClientGroups(database, clock)
    await groups.refresh()
    first = set(groups.keys)
    clock.at += timedelta(days=2)
    await groups.refresh()
    assert min(groups.keys) == max(first)
    assert len(groups.keys) == 3


async def test_addresses_of_one_ipv6_network_are_one_client(database: Database) -> None:
    groups = ClientGroups(database, FrozenClock())
    await groups.refresh()
    assert groups.names("2a02:1:2:3::1") == groups.names("2a02:1:2:3:ffff::9") != []
    assert groups.names("2a02:1:2:3::1") != groups.names("2a02:1:2:4::1")
    assert groups.names("::ffff:81.2.69.142") == groups.names("81.2.69.142")


@pytest.mark.parametrize("address", ["", "127.0.0.1", "10.1.2.3", "100.64.0.9", "fd00::1", "::1", "nonsense"])
async def test_address_that_is_not_public_names_no_client(database: Database, address: str) -> None:
    groups = ClientGroups(database, FrozenClock())
    await groups.refresh()
    assert groups.names(address) == []


@pytest.mark.parametrize(
    ("address", "network"),
    [("81.2.69.142", "81.2.69.142"), ("::ffff:81.2.69.142", "81.2.69.142"),
     ("2a02:1:2:3::1", "2a02:1:2:3::/64"), ("nonsense", "nonsense")],
)  # fmt: skip
def test_network_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == network
