"""Dead letters are listed with their reasons, and replayed once their cause is fixed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backbone import ids
from backbone.bus.kafka import KafkaBus
from backbone.bus.protocol import EventBus, Message
from backbone.bus.sqlite import SqliteBus
from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.http.caller import sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.messaging.consumer import Consumer
from backbone.messaging.dead_letter_routes import dead_letter_routes
from backbone.messaging.dead_letters import DeadLetters
from backbone.messaging.outbox import Relay, announce
from backbone.service import new_app
from tests.backbone.notes import Noted, noted, open_database, sqlite_url, take_notes
from tests.engines import fresh_postgres, fresh_topics
from tests.waiting import until

SECRET = "a secret of tests"


class Notes:
    """A consumer group whose handler may be broken: it then cannot take notes of `b`."""

    def __init__(self, database: Database, bus: EventBus) -> None:
        self.database = database
        self.bus = bus
        self.broken = True
        self.consumer = Consumer("notes", bus, ["notes"], {Noted: self.take}, database)
        self.relay = Relay("tests", database, bus, ["notes"])
        app = new_app("notes", SECRET)
        app.include_router(dead_letter_routes(DeadLetters("notes", bus, database)))
        self._client = InProcessServiceClient(app)

    async def take(self, events: Sequence[Any], session: Transaction) -> None:
        if self.broken and any(event.text == "b" for event in events):
            raise ValueError("b cannot be noted")
        await take_notes(events, session)

    async def ask(self, path: str, **body: str) -> ServiceResponse:
        caller = sign_caller(SECRET, partner="ataa", scopes=("internal",))
        headers = {"content-type": "application/json", **caller}
        sent = json.dumps(body).encode()
        return await self._client.request("POST", f"/internal/dead-letters{path}", headers=headers, body=sent)

    async def letters(self) -> list[dict[str, Any]]:
        return list((await self.ask("")).json()["data"])

    async def replay(self, *letters: str) -> list[dict[str, Any]]:
        reply = await self.ask("/replay", ids=list(letters))
        assert reply.status == 200, reply.body
        return list(reply.json()["data"])

    async def texts(self) -> list[str]:
        return [text for _, text in await noted(self.database)]

    async def announce(self, *texts: str) -> None:
        async with self.database.transaction() as session:
            await announce(session, [Noted(about="k", text=text) for text in texts])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(work.run(stop)) for work in (self.relay, self.consumer)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*tasks)


@pytest.fixture(params=["embedded", "real"])
async def notes(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Notes]:
    async with AsyncExitStack() as stack:
        bus: EventBus
        if request.param == "embedded":
            url, bus = sqlite_url(tmp_path), SqliteBus(tmp_path / "bus.db")
        else:
            url = await stack.enter_async_context(fresh_postgres())
            bootstrap, prefix = await stack.enter_async_context(fresh_topics("notes", "notes.dead-letter"))
            bus = KafkaBus(bootstrap, prefix=prefix, session_timeout_ms=3_000)
        stack.push_async_callback(bus.close)
        yield Notes(await stack.enter_async_context(open_database(url)), bus)


async def test_letter_is_listed_with_its_reason_and_replayed_once_the_cause_is_fixed(notes: Notes) -> None:
    async with notes.running():
        await notes.announce("a", "b", "c")

        async def one_is_dead() -> list[dict[str, Any]]:
            return await notes.letters()

        (letter,) = await until(one_is_dead)
        assert await notes.texts() == ["a", "c"]
        assert (letter["topic"], letter["reason"]) == ("notes", "ValueError: b cannot be noted")
        assert (letter["name"], letter["handled"]) == (Noted.wire_name, False)
        shown = (await notes.ask("/show", id=letter["id"])).json()
        assert json.loads(shown["value"])["text"] == "b"

        notes.broken = False
        (first,) = await notes.replay(letter["id"])
        assert (first["id"], first["refused"]) == (letter["id"], None)
        await notes.replay(letter["id"])  # handled by now, or not

        async def is_noted() -> bool:
            return await notes.texts() == ["a", "c", "b"]

        await until(is_noted)
        assert (await notes.letters())[0]["handled"]
        (again,) = await notes.replay(letter["id"])
        assert (again["handled"], again["refused"]) == (True, "The group has handled this event.")
        await notes.announce("end")

        async def ended() -> bool:
            return (await notes.texts())[-1] == "end"

        await until(ended)
    assert await notes.texts() == ["a", "c", "b", "end"]


async def test_letter_that_fails_again_is_one_letter_with_the_newest_reason(notes: Notes) -> None:
    async with notes.running():
        await notes.announce("b")
        (letter,) = await until(notes.letters)
        await notes.replay(letter["id"])

        async def failed_again() -> bool:
            (newest,) = await notes.letters()
            return newest["offset"] > letter["offset"]

        await until(failed_again)


async def test_letter_whose_age_is_unknown_or_too_great_is_not_replayed(notes: Notes) -> None:
    old = ids.lowest("evt", datetime.now(UTC) - timedelta(days=7))
    async with notes.running():
        value = Noted(about="k", text="b").to_bytes()
        await notes.bus.publish(
            [Message("notes", "k", one, Noted.wire_name, value) for one in (old, "evt_1")]
        )

        async def both_are_dead() -> bool:
            return len(await notes.letters()) == 2

        await until(both_are_dead)
        refused = await notes.replay(old, "evt_1", "evt_1", "evt_2")  # one is named twice, one is unknown
        assert [one["id"] for one in refused] == [old, "evt_1"]
        assert not any(one["handled"] or one["refused"] is None for one in refused)
    assert (await notes.ask("/replay", ids=[])).status == 422
    assert (await notes.ask("/show", id="\x00")).status == 422
