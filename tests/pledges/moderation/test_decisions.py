"""Messages held at intake, decisions of moderators, and what is shown after each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbone import ids
from backbone.contracts.pledges import MessageModerated, MessageState
from services.pledges.moderation.states import NEXT, Action, Texts, shown
from tests.pledges.harness import Harness, a_pledge, pledges_harness, usd

BAD = "Call me: 050 123 4567"


async def pledge(harness: Harness, value: str = "25.00", **fields: Any) -> str:
    made = await harness.pledge(a_pledge(value, **fields))
    assert made.status == 201, made.body
    return str(made.json()["id"])


async def held_pledge(harness: Harness) -> str:
    await harness.drive()
    return await pledge(harness, donor={"name": "Layla"}, message=BAD)


async def texts_of(harness: Harness, pledge_id: str) -> tuple[Any, ...]:
    texts = (await harness.post_internal("/internal/words", ids=[pledge_id]))[pledge_id]
    return texts["name"], texts["message"], texts["version"]


async def listed(harness: Harness, state: str, **query: str) -> list[dict[str, Any]]:
    sent = "&".join(f"{name}={value}" for name, value in {"state": state, **query}.items())
    reply = await harness.read("/v1/drives/winter/messages", sent, scopes=("moderation",))
    assert reply.status == 200, reply.body
    return list(reply.json()["data"])


async def decide(harness: Harness, pledge_id: str, action: str, body: Any = None, **who: Any) -> Any:
    return await harness.post(
        f"/v1/messages/{pledge_id}/{action}", body, **({"scopes": ("moderation",)} | who)
    )


async def test_message_that_does_not_pass_the_filters_is_held_with_its_reasons(harness: Harness) -> None:
    held = await held_pledge(harness)
    passed = await pledge(harness, donor={"name": "Sara"}, message="For a warm night")
    (message,) = await listed(harness, "held")
    assert (message["pledge"], message["reasons"]) == (held, {"message": ["phone"]})
    assert (message["name"], message["message"], message["version"]) == ("Layla", BAD, 0)
    assert [one["pledge"] for one in await listed(harness, "approved")] == [passed]
    assert await texts_of(harness, held) == ("Layla", None, 0)  # the name passes the filters
    assert await texts_of(harness, passed) == ("Sara", "For a warm night", 0)


async def test_anonymous_donors_name_is_neither_filtered_nor_listed(harness: Harness) -> None:
    await harness.drive()
    await pledge(harness, donor={"name": BAD, "anonymous": True})
    named = await pledge(harness, donor={"name": BAD, "anonymous": True}, message="Hello")
    assert await listed(harness, "held") == []
    (message,) = await listed(harness, "approved")
    assert (message["pledge"], message["name"], message["anonymous"]) == (named, None, True)


@pytest.mark.parametrize(
    ("mode", "below", "value", "state"),
    [
        ("off", None, "25.00", "approved"),
        ("filtered", None, "25.00", "approved"),
        ("all", None, "25.00", "held"),
        ("all", "25.00", "25.00", "held"),
        ("all", "25.01", "25.00", "approved"),
    ],
)
async def test_setting_of_the_drive_decides(
    harness: Harness, mode: str, below: str | None, value: str, state: str
) -> None:
    moderation = {"mode": mode, "auto_approve_below": usd(below) if below else None, "blocked_words": ["Xyz"]}
    await harness.drive(moderation=moderation)
    made = await pledge(harness, value, donor={"name": "Layla"}, message="Hello")
    assert [one["pledge"] for one in await listed(harness, state)] == [made]
    blocked = await pledge(harness, value, message="xyz!")
    assert blocked in [
        one["pledge"] for one in await listed(harness, "approved" if mode == "off" else "held")
    ]
    link = await pledge(harness, value, message="evil.com")
    assert (await texts_of(harness, link))[1] is None


async def test_setting_is_shown_to_the_owner_and_changed_at_any_time(harness: Harness) -> None:
    await harness.drive(state="closed")
    default = {"mode": "filtered", "auto_approve_below": None, "blocked_words": []}
    assert (await harness.read("/v1/drives/winter")).json()["moderation"] == default
    changed = await harness.patch("/v1/drives/winter", {"moderation": {"mode": "all"}})
    assert changed.json()["moderation"] == default | {"mode": "all"}
    other = await harness.read("/v1/drives/winter", partner="other", scopes=("drives",))
    assert other.json()["moderation"] is None
    for wrong in (
        {"mode": "none"},
        None,
        {"auto_approve_below": {"currency": "EUR", "value": "1.00"}},
        {"auto_approve_below": usd("0.00")},
        {"blocked_words": [""]},
        {"blocked_words": ["x"] * 201},
        {"blocked_words": ["\x00"]},
    ):
        reply = await harness.patch("/v1/drives/winter", {"moderation": wrong})
        assert (reply.status, reply.json()["type"]) == (422, "/problems/invalid-request"), wrong


@pytest.mark.parametrize("before", list(MessageState))
@pytest.mark.parametrize("action", list(Action))
async def test_decision_follows_the_table_in_every_state(
    harness: Harness, before: MessageState, action: Action
) -> None:
    held = await held_pledge(harness)
    ways = {"held": [], "approved": ["approve"], "hidden": ["hide"], "pinned": ["pin"]}
    for step in ways[before.value]:
        assert (await decide(harness, held, step)).status == 200
    version = len(ways[before.value])
    reply = await decide(harness, held, action.value, {"note": "why", "seen_version": version})
    after = NEXT[before][action]
    if after is None:
        assert (reply.status, reply.json()["type"]) == (409, "/problems/message-state")
        return
    assert (reply.status, reply.json()["state"]) == (200, after)
    assert reply.json()["version"] == version + (after is not before)
    assert [one["pledge"] for one in await listed(harness, after.value)] == [held]
    announced = [one for one in await harness.announced() if isinstance(one, MessageModerated)]
    assert len(announced) == version + (after is not before)
    if announced:
        assert (announced[-1].state, announced[-1].version) == (after, len(announced))
    expected = {
        "held": ("Layla", None),
        "approved": ("Layla", BAD),
        "hidden": (None, None),
        "pinned": ("Layla", BAD),
    }
    if announced:
        expected["held"] = (None, None)  # given back by a moderator
    assert await texts_of(harness, held) == (*expected[after.value], len(announced))


async def test_history_names_who_decided_what_and_why(harness: Harness) -> None:
    held = await held_pledge(harness)
    await decide(harness, held, "approve", {"note": "his shop"})
    await decide(harness, held, "approve")  # a repeat
    await decide(harness, held, "hide", {})
    reply = await harness.read(f"/v1/messages/{held}/history", scopes=("moderation",))
    steps = [(one["version"], one["from"], one["to"], one["note"]) for one in reply.json()["data"]]
    assert steps == [
        (0, None, "held", None),
        (1, "held", "approved", "his shop"),
        (2, "approved", "hidden", None),
    ]
    assert [one["partner"] for one in reply.json()["data"]] == [None, "default", "default"]
    assert b"050" not in reply.body


async def test_conflicting_decision_is_refused_and_identical_one_is_not(harness: Harness) -> None:
    held = await held_pledge(harness)
    assert (await decide(harness, held, "approve", {"seen_version": 0})).json()["version"] == 1
    repeated = await decide(harness, held, "approve", {"seen_version": 0})
    assert (repeated.status, repeated.json()["version"]) == (200, 1)
    conflicting = await decide(harness, held, "hide", {"seen_version": 0})
    assert (conflicting.status, conflicting.json()["type"]) == (409, "/problems/message-decided")
    assert "approved" in conflicting.json()["detail"]
    assert await texts_of(harness, held) == ("Layla", BAD, 1)


async def test_one_of_two_opposite_decisions_at_once_wins(harness: Harness) -> None:
    held = await held_pledge(harness)
    replies = await asyncio.gather(
        *(decide(harness, held, action, {"seen_version": 0}) for action in ("approve", "hide"))
    )
    assert sorted(reply.status for reply in replies) == [200, 409]


async def test_only_the_owner_and_admins_moderate(harness: Harness) -> None:
    held = await held_pledge(harness)
    path = f"/v1/messages/{held}/history"
    for who, problem in (
        ({"scopes": ("drives",)}, "forbidden"),
        ({"scopes": ("moderation",), "partner": "other"}, "not-your-drive"),
        ({"scopes": ("moderation",), "mode": "test"}, "forbidden"),
    ):
        for reply in (
            await decide(harness, held, "hide", **who),
            await harness.read(path, **who),
            await harness.read("/v1/drives/winter/messages", **who),
        ):
            assert (reply.status, reply.json()["type"]) == (403, f"/problems/{problem}")
    assert (await decide(harness, held, "hide", scopes=("admin",), partner="other")).status == 200


async def test_unknown_messages_and_bad_bodies_are_refused(harness: Harness) -> None:
    held = await held_pledge(harness)
    silent = await pledge(harness, donor={"email": "layla@example.org"})
    for unknown in ("plg_01frtz5n00000000000000000c", "nothing", silent):
        assert (await decide(harness, unknown, "hide")).status == 404
    for body, status in (
        (b"{", 400),
        (b"[]", 422),
        ({"note": "x" * 501}, 422),
        ({"note": ""}, 422),
        ({"seen_version": -1}, 422),
        ({"seen_version": 2**40}, 422),
        ({"seen_version": "1"}, 422),
        ({"more": 1}, 422),
        (b"null", 200),
    ):
        assert (await decide(harness, held, "hide", body)).status == status, body
    wrong = await harness.read("/v1/drives/winter/messages", "state=gone")
    assert wrong.status == 422


async def test_pages_are_newest_first_and_complete(harness: Harness) -> None:
    await harness.drive(moderation={"mode": "all"})
    made = [await pledge(harness, message=f"Hello {number}") for number in range(5)]
    found: list[str] = []
    after = ""
    while True:
        reply = await harness.read("/v1/drives/winter/messages", f"limit=2{after}")
        found += [one["pledge"] for one in reply.json()["data"]]
        if reply.json()["next"] is None:
            break
        after = f"&after={reply.json()['next']}"
    assert found == sorted(made, reverse=True)


async def test_texts_of_earlier_versions_are_shown_as_before_and_can_be_hidden(harness: Harness) -> None:
    """A process of a version before moderation stores rows without a state."""
    assert shown(Texts("Layla", "evil.com"), None, (), 0) == ("Layla", None)
    assert shown(Texts("Layla", "Hello"), "postponed", (), 3) == (None, None)  # a state of a newer version


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(st.tuples(st.sampled_from(list(Action)), st.integers(0, 4)), max_size=8))
async def test_history_and_state_agree_after_any_decisions(
    tmp_path: Path, actions: list[tuple[Action, int]]
) -> None:
    async with pledges_harness(tmp_path) as harness:
        slug = ids.new("drv").replace("_", "-")
        await harness.drive(slug)
        made = (await harness.pledge(a_pledge(message=BAD), drive=slug)).json()["id"]
        state, version = MessageState.HELD, 0
        for action, seen in actions:
            after = NEXT[state][action]
            reply = await decide(harness, made, action.value, {"seen_version": seen})
            accepted = after is not None and (after is state or seen == version)
            assert (reply.status == 200) == accepted
            if after is not None and accepted and after is not state:
                state, version = after, version + 1
        steps = (await harness.read(f"/v1/messages/{made}/history")).json()["data"]
        assert [one["version"] for one in steps] == list(range(version + 1))
        assert [one["from"] for one in steps[1:]] == [one["to"] for one in steps[:-1]]
        assert steps[-1]["to"] == state
