"""A replica of the notes service as its own process: a relay and a consumer on Kafka and PostgreSQL.

`python -m tests.backbone.replica <database> <bootstrap> <prefix> <session ms> <silent s>`; each note
it takes is signed with its process id.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from sqlalchemy import insert

from backbone.bus.kafka import KafkaBus
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.messaging.consumer import Consumer
from backbone.messaging.outbox import Relay
from backbone.service import Service, Worker, run_workers
from tests.backbone.notes import MESSAGING_TABLES, Note, Noted


async def sign_notes(events: Sequence[Noted], session: Transaction) -> None:
    """Store each event with the name of the replica."""
    rows = [{"about": str(os.getpid()), "text": event.text} for event in events]
    await session.execute(insert(Note), rows)


async def main(url: str, bootstrap: str, prefix: str, session_ms: str, idle_timeout_s: str) -> None:
    """Run until killed."""
    database = Database(url, MESSAGING_TABLES, idle_timeout_s=float(idle_timeout_s))
    bus = KafkaBus(bootstrap, prefix=prefix, session_timeout_ms=int(session_ms), request_timeout_s=3.0)
    relay = Relay("notes", database, bus, ["notes"])
    consumer = Consumer("notes", bus, ["notes"], {Noted: sign_notes}, database)
    workers = [Worker("notes.relay", relay.run), Worker("notes.consumer", consumer.run)]
    await run_workers([Service("notes", relay, workers)], asyncio.Event())  # type: ignore[arg-type]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
