"""The reads figure end to end: a real gateway process, the load generator and the floor, for a moment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from backbone.bus.sqlite import SqliteBus
from backbone.contracts import SnapshotTaken
from backbone.ids import DriveId, new
from bench import child
from bench.figures import reads
from bench.run_options import QUICK
from bench.single_service import message_of


async def publish_snapshot(data: Path) -> None:
    """Leave a drive's snapshot on the bus, as an embedded run does."""
    bus = SqliteBus(data / "bus.db")
    drive = DriveId(new("drv"))
    totals = {"drive": drive, "slug": "winter", "donations": 7, "leaders": [], "recent": []}
    now = datetime.now(UTC)
    snapshot = SnapshotTaken(
        drive_id=drive, slug="winter", epoch=1, sequence=7, revision=0, as_of=now, totals=totals
    )
    await bus.publish([message_of(snapshot)])
    await bus.close()


def test_reads_of_a_gateway_process_are_measured_with_floor_and_shares(tmp_path: Path) -> None:
    asyncio.run(publish_snapshot(tmp_path))
    options = replace(QUICK, reads_s=0.3, read_connections=4)
    environment = {"ATAA_DATA_DIR": str(tmp_path)}
    with child.running("bench.single_service", "gateway", "winter", "0", environment=environment) as gateway:
        full, etag = reads.measure(gateway, "winter", options)
    assert (full.name, etag.name) == ("reads", "reads_etag")
    for one in (full, etag):
        assert one.value > 0
        assert one.floor is not None
        assert one.floor > 0
        assert one.details["errors"] == 0
        assert 0 < float(one.details["generator_share"] or 0) < 1
    assert int(full.details["response_bytes"] or 0) > int(etag.details["response_bytes"] or 0)
