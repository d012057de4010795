"""A group's dead letters: read from its topic, and published again on the topic they came from.

A dead letter keeps the id of its event. An event published again is therefore handled by groups that have not
handled it and recognised by the others, as long as their inboxes remember its id (`inbox.KEEP`). Older ones
are refused: what they would have changed is in the producer's database.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import select

from backbone.bus.protocol import EventBus, Message, Record
from backbone.clock import rfc3339
from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.ids import created_at
from backbone.messaging.inbox import KEEP
from backbone.messaging.outbox import announce_message

MAX_LETTERS: Final = 10_000
"""The newest of a topic that are kept while it is read."""
READ_S: Final = 20.0
"""How long reading the topic may take."""
QUIET_S: Final = 2.0
"""A topic is read to its end when it has nothing new for so long."""
OLDEST: Final = KEEP - timedelta(days=1)


class Unreplayable(Exception):
    """A dead letter that is not published again; the message says why."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a group gave up, where it was on the bus, and why; `handled` once the group did it."""

    id: str
    name: str
    key: str
    topic: str
    partition: int
    offset: int
    reason: str
    value: str
    at: datetime | None
    handled: bool = False

    def as_json(self, *, whole: bool = False) -> dict[str, Any]:
        """The letter for operators; the event itself only with `whole`."""
        shown: dict[str, Any] = {
            "id": self.id, "name": self.name, "key": self.key, "topic": self.topic,
            "partition": self.partition, "offset": self.offset, "reason": self.reason,
            "at": self.at and rfc3339(self.at), "handled": self.handled,
        }  # fmt: skip
        return shown | {"value": self.value} if whole else shown


class DeadLetters:
    """The dead letters of one group."""

    def __init__(self, group: str, bus: EventBus, database: Database) -> None:
        self.group = group
        self._bus = bus
        self._database = database

    async def all(self) -> list[DeadLetter]:
        """The newest `MAX_LETTERS`, oldest first. Raises `BusUnavailable`."""
        letters = await self._read()
        handled = await self._handled([letter.id for letter in letters.values()])
        return [
            DeadLetter(**{name: getattr(letter, name) for name in _FIELDS}, handled=letter.id in handled)
            for letter in letters.values()
        ]

    async def replay(self, letter: DeadLetter) -> None:
        """Publish the event of a dead letter again, through the outbox.

        Raises `Unreplayable` for one that the group has handled, or whose id inboxes no longer remember.
        """
        if letter.handled:
            raise Unreplayable("The group has handled this event.")
        if letter.at is None or datetime.now(UTC) - letter.at > OLDEST:
            raise Unreplayable(
                f"The event is older than {OLDEST.days} days: other groups may handle it twice."
            )
        async with self._database.transaction() as session:
            await announce_message(
                session, Message(letter.topic, letter.key, letter.id, letter.name, letter.value.encode())
            )

    async def _read(self) -> dict[str, DeadLetter]:
        """By event; of several letters of an event, the newest."""
        found: dict[str, DeadLetter] = {}
        subscription = await self._bus.follow([f"{self.group}.dead-letter"], "beginning")
        try:
            async with asyncio.timeout(READ_S):
                while records := await subscription.fetch(500, QUIET_S):
                    for record in (record for record in records if record.name):
                        found.pop(record.id, None)
                        found[record.id] = _letter(record)
                        if len(found) > MAX_LETTERS:
                            del found[next(iter(found))]
        finally:
            await subscription.close()
        return found

    async def _handled(self, ids: Sequence[str]) -> set[str]:
        inbox = self._database.messaging_tables.inbox
        known = select(inbox.c.event_id).where(inbox.c.group == self.group, one_of(inbox.c.event_id, "ids"))
        async with self._database.reading() as session:
            return {row.event_id for row in await session.execute(known, {"ids": ids})}


_FIELDS: Final = ("id", "name", "key", "topic", "partition", "offset", "reason", "value", "at")


def _letter(record: Record) -> DeadLetter:
    content: Mapping[str, Any] = json.loads(record.value)
    return DeadLetter(
        record.id, record.name, record.key, content["topic"], content["partition"], content["offset"],
        content["reason"], content["value"], _moment_of(record.id),
    )  # fmt: skip


def _moment_of(event_id: str) -> datetime | None:
    """When an event was announced, by its id."""
    try:
        return created_at(event_id)
    except ValueError:
        return None
