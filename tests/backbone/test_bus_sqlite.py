"""What only the embedded bus has to promise: it forgets, but nothing that somebody has yet to read."""

from __future__ import annotations

import time
from pathlib import Path

from backbone.bus.protocol import Message
from backbone.bus.sqlite import SqliteBus


async def test_pruning_goes_in_pieces_and_spares_what_is_young_or_not_yet_read_by_every_group(
    tmp_path: Path,
) -> None:
    bus = SqliteBus(tmp_path / "bus.db")
    await bus.publish([Message("notes", "k", f"evt_{n}", "x", b"") for n in range(10)])
    quick, slow = await bus.subscribe("quick", ["notes"]), await bus.subscribe("slow", ["notes"])
    (partition,) = {record.partition for record in await quick.fetch(100, 1)}
    await quick.commit({partition: 10})
    await slow.commit({partition: 7})
    assert bus.drop_old(time.time() - 60, 4) == 0  # all are young
    assert bus.drop_old(time.time() + 60, 4) == 4
    assert bus.drop_old(time.time() + 60, 4) == 3
    assert bus.drop_old(time.time() + 60, 4) == 0
    follower = await bus.follow(["notes"], "beginning")
    assert [record.id for record in await follower.fetch(100, 1)] == ["evt_7", "evt_8", "evt_9"]
    await bus.close()
