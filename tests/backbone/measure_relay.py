"""Measures how many events a second one relay publishes: the bound of a service, whatever its replicas.

    python -m tests.backbone.measure_relay --events 20000      (needs the tests' Kafka and PostgreSQL)

Events of 600 bytes of one drive wait in the outbox of a PostgreSQL database; CPU is of this process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import uvloop

from backbone.bus.kafka import KafkaBus
from backbone.messaging.outbox import Relay, announce
from tests.backbone.notes import Noted, open_database
from tests.engines import fresh_postgres, fresh_topics

BATCH = 1_000
TEXT = "x" * 560


async def main() -> None:
    """Fill the outbox, then relay it until it is empty; a line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=20_000)
    events = parser.parse_args().events
    async with (
        fresh_postgres() as url,
        fresh_topics("notes") as (bootstrap, prefix),
        open_database(url) as database,
    ):
        for _ in range(0, events, BATCH):
            async with database.transaction() as session:
                await announce(session, [Noted(about="drive", text=TEXT) for _ in range(BATCH)])
        bus = KafkaBus(bootstrap, prefix=prefix)
        relay, stop = Relay("measured", database, bus, ["notes"]), asyncio.Event()
        began, cpu = time.monotonic(), time.process_time()
        running = asyncio.create_task(relay.run(stop))
        while not await relay.is_empty():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        stop.set()
        await running
        await bus.close()
    shown = {
        "events": events,
        "events_per_s": round(events / took),
        "cpu_us_an_event": round(cpu / events * 1e6, 1),
    }
    print(json.dumps(shown))  # noqa: T201 - the command's output


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
