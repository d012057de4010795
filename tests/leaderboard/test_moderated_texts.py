"""What is shown of a donation follows the newest decision of a moderator, however its events arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from backbone.contracts import MessageModerated
from backbone.database.database import Database
from backbone.http.service_client import ServiceResponse
from services.leaderboard.display_texts import DisplayTexts, DonorTexts
from services.leaderboard.tables import display_texts
from tests.contracts.future_events import future_event
from tests.leaderboard.builders import (
    DRIVE,
    NOON,
    SECRET,
    FakePledges,
    drive,
    handle_events,
    payment,
    pledge,
    running,
)
from tests.leaderboard.test_snapshots import reading_snapshots
from tests.waiting import until

SHOWN: dict[str, Any] = {"name": "Huda", "message": "Salam"}
NOTHING: dict[str, Any] = {"name": None, "message": None}


def moderated(version: int, state: str, pledge_id: str = "plg_1") -> MessageModerated:
    return MessageModerated(
        pledge_id=pledge_id, drive_id=DRIVE, version=version, state=state, moderated_at=NOON
    )


def decided(version: int, state: str) -> dict[str, Any]:
    """What pledges answers after a decision."""
    return (SHOWN if state in ("approved", "pinned") else NOTHING) | {"version": version}


async def test_hidden_text_leaves_snapshots_donations_and_streams(tmp_path: Path) -> None:
    fake = FakePledges({"plg_1": decided(0, "approved")})
    async with running(tmp_path, pledges=fake) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive(), pledge("plg_1"), payment("pay_1", pledge_id="plg_1"))
        await until(lambda: texts_of(reader) == [("Huda", "Salam")])
        fake.display_texts["plg_1"] = decided(1, "hidden")
        await leaderboard.publish(moderated(1, "hidden"))
        await until(lambda: texts_of(reader) == [(None, None)])
        (gift,) = (await leaderboard.get("/v1/drives/winter/donations")).json()["data"]
        assert (gift["name"], gift["message"]) == (None, None)
        shown = await leaderboard.post("/internal/displays", {"ids": ["plg_1"]})
        assert shown.json()["data"]["plg_1"] == NOTHING
        assert len(fake.asked) == 1  # a hidden text is not fetched again
        fake.display_texts["plg_1"] = decided(2, "approved")
        await leaderboard.publish(moderated(2, "approved"))
        await until(lambda: texts_of(reader) == [("Huda", "Salam")])
        assert reader.newest is not None
        assert reader.newest.totals["raised"]["value"] == "25.00"
        assert all(one.totals["donations"] == len(one.totals["recent"]) for one in reader.snapshots[-2:])


def texts_of(reader: Any) -> list[tuple[Any, Any]]:
    newest = reader.newest
    return [(gift["name"], gift["message"]) for gift in newest.totals["recent"]] if newest else []


async def test_held_text_is_shown_as_far_as_pledges_shows_it(tmp_path: Path) -> None:
    fake = FakePledges({"plg_1": decided(0, "approved")})
    async with running(tmp_path, pledges=fake) as leaderboard, reading_snapshots(leaderboard) as reader:
        await leaderboard.publish(drive(), pledge("plg_1"), payment("pay_1", pledge_id="plg_1"))
        await until(lambda: texts_of(reader) == [("Huda", "Salam")])
        fake.display_texts["plg_1"] = NOTHING | {"name": "Huda", "version": 1}
        await leaderboard.publish(moderated(1, "held"))
        await until(lambda: texts_of(reader) == [("Huda", None)])


async def test_state_of_a_later_version_shows_what_pledges_answers(database: Database) -> None:
    fake = FakePledges({"plg_1": decided(0, "approved")})
    texts = DisplayTexts(database, fake, SECRET)
    await texts.of(["plg_1"])
    later = future_event("pledges.message_moderated.v1", drive_id=DRIVE, pledge_id="plg_1")
    fake.unavailable = True
    await handle_events(database, later)
    assert await texts.of(["plg_1"]) == {}
    fake.unavailable, fake.display_texts["plg_1"] = False, NOTHING | {"version": 2}
    assert await DisplayTexts(database, fake, SECRET).of(["plg_1"]) == {"plg_1": DonorTexts(None, None)}


@dataclass
class AnsweringLate(FakePledges):
    """Answers what it knew when it was asked, once `release` is set."""

    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def request(self, *args: Any, **kwargs: Any) -> ServiceResponse:
        answer = await super().request(*args, **kwargs)
        await self.release.wait()
        return answer


async def test_answer_that_was_overtaken_by_a_decision_is_not_shown(database: Database) -> None:
    late = AnsweringLate({"plg_1": decided(0, "approved")})
    texts = DisplayTexts(database, late, SECRET)
    asked = asyncio.create_task(texts.of(["plg_1"]))
    await until(lambda: late.asked)
    await handle_events(database, moderated(1, "hidden"))
    late.release.set()
    assert await asked == {"plg_1": DonorTexts(None, None)}
    assert await texts.of(["plg_1"]) == {"plg_1": DonorTexts(None, None)}


STATES = st.sampled_from(["held", "approved", "hidden", "pinned"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(STATES, min_size=1, max_size=5), data=st.data())
async def test_any_order_of_delivery_ends_with_the_last_decision(
    database: Database, states: Sequence[str], data: st.DataObject
) -> None:
    """Events are repeated and reordered; texts are fetched in between, at any version committed by then."""
    async with database.transaction() as session:
        await session.execute(delete(display_texts))
    events = [moderated(number, state) for number, state in enumerate(states, 1)]
    order = data.draw(st.permutations([*events, *data.draw(st.lists(st.sampled_from(events), max_size=3))]))
    known = [decided(0, "approved"), *(decided(one.version, str(one.state)) for one in events)]
    announced = fetched = 0
    for event in order:
        answered = data.draw(st.none() | st.sampled_from(known))
        if answered is not None:
            await DisplayTexts(database, FakePledges({"plg_1": answered}), SECRET).of(["plg_1"])
            fetched = max(fetched, answered["version"])
        await handle_events(database, event)
        announced = max(announced, event.version)
        stored = await DisplayTexts(database, FakePledges(unavailable=True), SECRET).of(["plg_1"])
        # Nothing older than what was announced.
        allowed = map(texts, known[announced : max(announced, fetched) + 1])
        assert set(stored.values()) <= set(allowed)
    last = DisplayTexts(database, FakePledges({"plg_1": known[-1]}), SECRET)
    assert await last.of(["plg_1"]) == {"plg_1": texts(known[-1])}


def texts(answer: dict[str, Any]) -> DonorTexts:
    return DonorTexts(answer["name"], answer["message"])
