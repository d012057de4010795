"""Several desks decide at once about the same messages, as desk.js does it: with what each saw last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbone import ids
from backbone.contracts.pledges import MessageModerated
from tests.pledges.harness import Harness, a_pledge, pledges_harness
from tests.pledges.moderation.test_decisions import BAD, decide

MESSAGES = 2
ACTIONS = ("approve", "hide", "pin", "unpin", "hold")
BACK = {"held": "hold", "approved": "unpin", "hidden": "hide", "pinned": "pin"}

Step = tuple[int, str, int]
"""Which desk, what it does, and with which message."""


@dataclass
class Desk:
    """A moderator's page: what it saw last, and the decisions it can undo."""

    harness: Harness
    name: str
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    mine: list[tuple[str, str, str, int]] = field(default_factory=list)
    decided: list[tuple[str, int, str, str]] = field(default_factory=list)
    """Message, version, the state before as this desk saw it, and after."""

    async def look(self, drive: str) -> None:
        for state in BACK:
            reply = await self.harness.read(f"/v1/drives/{drive}/messages", f"state={state}&limit=100")
            self.seen |= {one["pledge"]: one for one in reply.json()["data"]}

    async def act(self, message: str, action: str) -> None:
        saw = self.seen[message]
        found = await self._send(message, action, saw["state"], saw["version"])
        if found and found["changed"] and found["state"] != saw["state"]:
            self.mine.append((message, saw["state"], found["state"], found["version"]))

    async def undo(self) -> None:
        if self.mine:
            message, before, after, version = self.mine.pop()
            action = "approve" if before == "approved" and after != "pinned" else BACK[before]
            await self._send(message, action, after, version)

    async def _send(self, message: str, action: str, state: str, version: int) -> dict[str, Any] | None:
        body = {"seen_version": version, "moderator": self.name}
        reply = await decide(self.harness, message, action, body)
        found: dict[str, Any] = reply.json()
        if reply.status != 200:
            assert (reply.status, found["type"]) in (
                (409, "/problems/message-decided"), (409, "/problems/message-state")
            )  # fmt: skip
            return None
        if found["changed"]:
            # Decided upon exactly what was seen: not unknowingly after another one, and not over it.
            assert found["version"] == version + 1
            self.decided.append((message, found["version"], state, found["state"]))
        return found


async def run(desks: Sequence[Desk], messages: Sequence[str], drive: str, step: Step) -> None:
    desk, action, message = desks[step[0]], step[1], messages[step[2]]
    if action == "look":
        await desk.look(drive)
    elif action == "undo":
        await desk.undo()
    else:
        await desk.act(message, action)


steps = st.tuples(
    st.integers(0, 2), st.sampled_from((*ACTIONS, "look", "undo")), st.integers(0, MESSAGES - 1)
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.lists(steps, min_size=1, max_size=3), max_size=8))
async def test_each_change_follows_what_its_moderator_saw_and_is_in_the_history(
    tmp_path: Path, rounds: list[list[Step]]
) -> None:
    """The steps of a round are sent at the same time."""
    async with pledges_harness(tmp_path) as harness:
        drive = ids.new("drv").replace("_", "-")
        await harness.drive(drive)
        made = [await harness.pledge(a_pledge(message=BAD), drive=drive) for _ in range(MESSAGES)]
        messages = [one.json()["id"] for one in made]
        desks = [Desk(harness, name) for name in ("Sara", "Omar", "Huda")]
        for desk in desks:
            await desk.look(drive)
        for together in rounds:
            await asyncio.gather(*(run(desks, messages, drive, step) for step in together))
        await assert_history_is_what_was_decided(harness, drive, desks, messages)


async def assert_history_is_what_was_decided(
    harness: Harness, drive: str, desks: Sequence[Desk], messages: Sequence[str]
) -> None:
    final = Desk(harness, "final")
    await final.look(drive)
    decided = {
        (message, version): (desk.name, before, after)
        for desk in desks
        for message, version, before, after in desk.decided
    }
    assert len(decided) == sum(len(desk.decided) for desk in desks)  # no version was decided twice
    for message in messages:
        reply = await harness.read(f"/v1/messages/{message}/history", "limit=100")
        history = reply.json()["data"]
        assert {(one["version"]): (one["moderator"], one["from"], one["to"]) for one in history[1:]} == {
            version: said for (of, version), said in decided.items() if of == message
        }
        assert history[-1]["to"] == final.seen[message]["state"]
        assert history[-1]["version"] == final.seen[message]["version"]
    announced = [one for one in await harness.announced() if isinstance(one, MessageModerated)]
    mine = {(one.pledge_id, one.version): one.state for one in announced if one.pledge_id in messages}
    assert mine == {key: after for key, (_, _, after) in decided.items()}
