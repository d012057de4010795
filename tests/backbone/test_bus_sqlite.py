"""Pruning of the embedded bus: records that a group has not read yet are kept."""

from __future__ import annotations

import time
from pathlib import Path

from backbone.bus.protocol import Message
from backbone.bus.sqlite import SqliteBus


async def test_pruning_in_batches_keeps_recent_and_unread_records(
    tmp_path: Path,
) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    await bus.publish([Message("notes", "k", f"evt_{n}", "x", b"") for n in range(10)])
    quick, slow = await bus.subscribe("quick", ["notes"]), await bus.subscribe("slow", ["notes"])
    (partition,) = {record.partition for record in await quick.fetch(100, 1)}
    await quick.commit({partition: 10})
    await slow.commit({partition: 7})
    assert bus.drop_old(time.time() - 60, 4) == 0  # all are recent
    assert bus.drop_old(time.time() + 60, 4) == 4
    assert bus.drop_old(time.time() + 60, 4) == 3
    assert bus.drop_old(time.time() + 60, 4) == 0
    follower = await bus.follow(["notes"], "beginning")
    assert [record.id for record in await follower.fetch(100, 1)] == ["evt_7", "evt_8", "evt_9"]
    await bus.close()
