"""What only the embedded bus can get wrong: its memory of a file whose last commit did not happen."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backbone.bus import BusUnavailable, Message
from backbone.bus_sqlite import SqliteBus


def snapshot(text: str) -> Message:
    return Message("snapshots", "drv", f"evt_{text}", "tests.shown.v1", text.encode())


async def test_a_snapshot_outlives_the_failure_of_the_one_before(tmp_path: Path) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    await bus.publish([snapshot("old")], lossy=True)
    with closing(sqlite3.connect(tmp_path / "bus.db", isolation_level=None)) as disk:
        disk.execute("CREATE TRIGGER full BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'full'); END")
        with pytest.raises(BusUnavailable):
            await bus.publish([snapshot("failed")], lossy=True)
        disk.execute("DROP TRIGGER full")
    await bus.publish([snapshot("newest")], lossy=True)
    follower = await bus.follow(["snapshots"], "beginning")
    assert [record.value for record in await follower.fetch(10, 1.0)] == [b"newest"]
    await bus.publish([snapshot("next")], lossy=True)
    assert [record.value for record in await follower.fetch(10, 1.0)] == [b"next"]
    await bus.close()
