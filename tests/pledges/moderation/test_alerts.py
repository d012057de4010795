"""Controls of alerts: the state after each, who may control, and what is announced."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone import ids
from backbone.contracts import AlertsControlled, PaymentStatus
from backbone.ids import DriveId, PledgeId
from services.pledges.moderation.alerts import AlertAction, controlled
from tests.pledges.harness import Harness, a_pledge
from tests.pledges.test_payment_events import change, wait_until_consumed

NOON = datetime(2030, 1, 7, 12, tzinfo=UTC)
DRIVE = DriveId("drv_01frtz5n00000000000000000a")
NOTHING = AlertsControlled(drive_id=DRIVE, version=0, paused=False, skip=None, replay=None)
CONTROLS = st.tuples(st.sampled_from(list(AlertAction)), st.none() | st.just(PledgeId("plg_1")))


async def control(harness: Harness, action: str, body: Any = None, drive: str = "winter", **who: Any) -> Any:
    caller = {"scopes": ("moderation",)} | who
    return await harness.post(f"/v1/drives/{drive}/alerts/{action}", body, **caller)


async def announced(harness: Harness) -> list[AlertsControlled]:
    return [one for one in await harness.announced() if isinstance(one, AlertsControlled)]


@given(st.lists(CONTROLS, max_size=12))
def test_every_change_is_one_version_and_a_repeat_is_none(
    controls: list[tuple[AlertAction, PledgeId | None]],
) -> None:
    state, paused = NOTHING, False
    made: dict[AlertAction, int] = {}
    for number, (action, pledge) in enumerate(controls):
        before, at = state, NOON + timedelta(seconds=number)
        state = controlled(state, action, at, pledge)
        if action in (AlertAction.PAUSE, AlertAction.RESUME):
            repeated, paused = paused == (action is AlertAction.PAUSE), action is AlertAction.PAUSE
            assert (state is before) == repeated
        else:
            made[action] = state.version
        assert state.version - before.version == (state is not before)
        assert state.paused == paused
        assert made.get(AlertAction.SKIP) == (state.skip and state.skip.version)
        assert made.get(AlertAction.REPLAY) == (state.replay and state.replay.version)


async def test_each_control_is_announced_once_with_the_whole_state(harness: Harness) -> None:
    drive_id = await harness.drive()
    assert (await control(harness, "resume")).json()["version"] == 0  # nothing was paused
    for action, version, paused in (
        ("pause", 1, True),
        ("pause", 1, True),
        ("skip", 2, True),
        ("replay", 3, True),
        ("resume", 4, False),
    ):
        reply = await control(harness, action)
        assert reply.status == 200, reply.body
        shown = reply.json()
        assert (shown["drive"], shown["version"], shown["paused"]) == (drive_id, version, paused)
    assert (shown["skip"]["version"], shown["replay"]["version"], shown["replay"]["pledge"]) == (2, 3, None)
    events = await announced(harness)
    assert [(one.version, one.paused) for one in events] == [(1, True), (2, True), (3, True), (4, False)]
    assert events[-1].skip == events[1].skip
    by_id = await control(harness, "pause", drive=drive_id)
    assert by_id.json()["version"] == 5


async def test_controls_at_once_get_versions_of_their_own(harness: Harness) -> None:
    await harness.drive()
    replies = await asyncio.gather(*(control(harness, "skip") for _ in range(5)))
    assert sorted(reply.json()["version"] for reply in replies) == [1, 2, 3, 4, 5]
    assert [one.version for one in await announced(harness)] == [1, 2, 3, 4, 5]


async def test_only_a_paid_donation_of_the_drive_is_shown_again(harness: Harness) -> None:
    await harness.drive()
    await harness.drive("other")
    pledge = (await harness.pledge(a_pledge())).json()["id"]
    unpaid = await control(harness, "replay", {"pledge": pledge})
    assert (unpaid.status, unpaid.json()["type"]) == (409, "/problems/donation-not-counted")
    async with harness.running_workers("pledges.consumer"):
        money = (2500, 0, 0)
        await harness.publish(change(ids.new("pay"), 1, PaymentStatus.CAPTURED, pledge=pledge, money=money))
        await wait_until_consumed(harness)
    shown = await control(harness, "replay", {"pledge": pledge})
    assert (shown.status, shown.json()["replay"]["pledge"]) == (200, pledge)
    assert (await control(harness, "replay", {"pledge": pledge}, "other")).status == 404
    assert (await control(harness, "replay", {"pledge": ids.new("plg")})).status == 404
    (event,) = await announced(harness)
    assert event.replay is not None and event.replay.pledge_id == pledge


async def test_only_the_owner_and_admins_control_alerts(harness: Harness) -> None:
    await harness.drive()
    for who, problem in (
        ({"scopes": ("drives",)}, "forbidden"),
        ({"partner": "other"}, "not-your-drive"),
        ({"mode": "test"}, "forbidden"),
    ):
        for action in AlertAction:
            reply = await control(harness, action.value, **who)
            assert (reply.status, reply.json()["type"]) == (403, f"/problems/{problem}")
    assert (await control(harness, "pause", drive="nothing")).status == 404
    assert (await control(harness, "stop")).status == 404
    assert await announced(harness) == []
    assert (await control(harness, "pause", scopes=("admin",), partner="other")).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (None, 200),
        ({}, 200),
        (b"null", 200),
        ({"pledge": None}, 200),
        (b"{", 400),
        (b"[]", 422),
        ({"pledge": "plg_x"}, 422),
        ({"pledge": "don_01frtz5n00000000000000000c"}, 422),
        ({"pledge": 1}, 422),
        ({"donation": "don_01frtz5n00000000000000000c"}, 422),
    ],
)
async def test_bad_bodies_are_refused_and_change_nothing(harness: Harness, body: Any, status: int) -> None:
    await harness.drive()
    assert (await control(harness, "replay", body)).status == status
    assert len(await announced(harness)) == (status == 200)
