from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone import ids
from backbone.bus.protocol import BusUnavailable, Message, Record
from backbone.clock import FrozenClock
from backbone.contracts import DriveLogged
from gateway.live import connection as connections
from gateway.live import replay
from gateway.live import view as views
from gateway.live.connection import Row
from gateway.live.view import FRAMES_AT_ONCE, FRAMES_PER_S, DriveView, TokenBucket
from tests.gateway.fake_viewer import Viewer
from tests.gateway.harness import DRIVE, Harness, ReceivedRequest, drive, gateway, hub_of, log_row
from tests.waiting import PATIENCE_S, until

LIVE = "/v1/drives/winter/live"


class Reading:
    """One open stream; `next` is the next frame as (event, id, data)."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self._text = ""

    async def next(self, within_s: float = PATIENCE_S) -> tuple[str, str | None, Any]:
        """The next frame that is not a comment."""
        async with asyncio.timeout(within_s):
            while True:
                block, found, rest = self._text.partition("\n\n")
                if not found:
                    chunk = await self.reply.content.readany()
                    if not chunk:
                        raise EOFError
                    self._text += chunk.decode()
                    continue
                self._text = rest
                fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
                if "event" in fields:
                    return fields["event"], fields.get("id"), json.loads(fields["data"])

    async def until(self, event: str) -> tuple[str | None, Any]:
        """The id and data of the next `event`."""
        while True:
            name, identifier, data = await self.next()
            if name == event:
                return identifier, data


@asynccontextmanager
async def watching(harness: Harness, query: str = "", **headers: str) -> AsyncIterator[Reading]:
    async with harness.session.get(LIVE + query, headers=headers) as reply:
        assert reply.status == 200
        yield Reading(reply)


def serve_log(harness: Harness, rows: list[DriveLogged]) -> None:
    """Let leaderboard answer with these rows."""

    def page(received: ReceivedRequest) -> Any:
        asked = dict(part.split("=") for part in received.query.split("&"))
        after, limit = int(asked["after"]), int(asked["limit"])
        shown = [row.as_row() for row in rows if row.sequence > after][:limit]
        return 200, {"data": shown, "next": str(shown[-1]["sequence"]) if len(shown) == limit else None}

    harness.leaderboard.answers[f"GET /v1/drives/{DRIVE}/events"] = page


async def test_stream_begins_with_the_newest_totals(harness: Harness) -> None:
    await harness.snapshot(3)
    await until(lambda: hub_of(harness).known(DRIVE).snapshot_version == (1, 3, 0))  # type: ignore[union-attr]
    async with watching(harness) as live:
        assert live.reply.headers["Content-Type"].startswith("text/event-stream")
        assert live.reply.headers["X-Accel-Buffering"] == "no"
        assert live.reply.headers["Access-Control-Allow-Origin"] == "*"
        event, identifier, totals = await live.next()
        assert (event, identifier, totals["sequence"]) == ("totals", None, 3)
        assert totals == (await harness.get("/v1/drives/winter/totals"))[2]


async def test_drive_without_donations_has_a_stream_and_an_unknown_one_is_404(harness: Harness) -> None:
    async with watching(harness) as live:
        assert (await live.next())[2]["donations"] == 0
        await harness.snapshot(1)
        assert (await live.until("totals"))[1]["sequence"] == 1
    assert (await harness.get("/v1/drives/nowhere/live"))[0] == 404


async def test_clients_get_different_reconnection_delays(harness: Harness) -> None:
    delays = set()
    for _ in range(5):
        async with harness.session.get(LIVE) as reply:
            line = await reply.content.readline()
            delays.add(int(line.removeprefix(b"retry: ")))
    assert len(delays) > 1
    assert all(1000 <= delay <= 5000 for delay in delays)


async def test_donation_frame_has_its_row_and_the_display_texts(harness: Harness) -> None:
    async with watching(harness) as live:
        row = await harness.log(1)
        identifier, donation = await live.until("donation")
    assert identifier == "1"
    assert donation == {
        **row.as_row(),
        "id": f"don_{row.payment_id.removeprefix('pay_')}",  # type: ignore[union-attr]
        "name": "أمل",
        "message": None,
        "reporting_amount": row.as_row()["amount"],
    }


async def test_display_texts_are_requested_once_per_batch_and_only_with_subscribers(harness: Harness) -> None:
    await harness.log(1)
    async with watching(harness) as one, watching(harness) as other:
        await one.next()
        await other.next()
        messages = [await harness.log(n) for n in (2, 3, 4)]
        for live in (one, other):
            assert [(await live.until("donation"))[0] for _ in range(3)] == ["2", "3", "4"]
    asked = [
        json.loads(h.body)["ids"] for h in harness.leaderboard.received if h.path == "/internal/displays"
    ]
    assert [one for ids in asked for one in ids] == [row.pledge_id for row in messages]


async def test_donations_are_sent_without_display_texts_if_those_are_unavailable(harness: Harness) -> None:
    harness.leaderboard.answers["POST /internal/displays"] = (500, {})
    async with watching(harness) as live:
        await harness.log(1)
        _, donation = await live.until("donation")
        texts = donation["name"], donation["message"]
        assert (*texts, donation["amount"]["value"]) == (None, None, "25.00")


async def test_milestones_have_frames_and_refunds_have_none(harness: Harness) -> None:
    async with watching(harness) as live:
        await live.next()
        await harness.log(1, "donation.refunded")
        await harness.log(2, "milestone.reached")
        await harness.log(3)
        assert (await live.next())[:2] == ("milestone", "2")
        assert (await live.next())[:2] == ("donation", "3")


async def test_frames_of_another_drive_are_not_sent(harness: Harness) -> None:
    async with watching(harness) as live:
        await live.next()
        await harness.log(1, drive_id="drv_" + "1" * 26)
        own = await harness.log(1)
        assert (await live.next())[2]["payment"] == own.payment_id


async def test_totals_never_go_back_and_end_with_the_newest(harness: Harness) -> None:
    async with watching(harness) as live:
        for number in range(1, 60):
            await harness.snapshot(number)
            if number % 7 == 0:
                await asyncio.sleep(0)
        seen = [-1]
        while seen[-1] < 59:
            seen.append((await live.until("totals"))[1]["sequence"])
    assert seen == sorted(set(seen))


async def test_missed_rows_are_replayed_before_new_ones(harness: Harness) -> None:
    rows = [log_row(n, "donation.counted" if n % 2 else "donation.refunded") for n in range(1, 251)]
    serve_log(harness, rows)
    await harness.snapshot(250)
    await until(lambda: hub_of(harness).known(DRIVE).tail == 250)  # type: ignore[union-attr]
    async with watching(harness, **{"Last-Event-ID": "3"}) as live:
        await live.until("totals")
        for row in (rows[249], log_row(251)):
            await harness.publish(row)  # one that is replayed as well, and one after it
        shown = [(await live.until("donation"))[0] for _ in range(124)]
    assert shown == [str(n) for n in range(5, 252, 2)]


async def test_client_that_missed_nothing_gets_no_replay(harness: Harness) -> None:
    serve_log(harness, [log_row(1)])
    await harness.snapshot(1)
    await until(lambda: hub_of(harness).known(DRIVE).tail == 1)  # type: ignore[union-attr]
    async with watching(harness, **{"Last-Event-ID": "1"}) as live:
        await live.next()
        await harness.log(2)
        assert (await live.next())[:2] == ("donation", "2")


@pytest.mark.parametrize(("header", "begins"), [({}, "2"), ({"Last-Event-ID": "3"}, "4")])
async def test_last_event_id_may_be_in_the_query_and_the_header_takes_precedence(
    harness: Harness, header: dict[str, str], begins: str
) -> None:
    serve_log(harness, [log_row(n) for n in range(1, 6)])
    await harness.snapshot(5)
    await until(lambda: hub_of(harness).known(DRIVE).tail == 5)  # type: ignore[union-attr]
    async with watching(harness, "?last_event_id=1", **header) as live:
        assert (await live.until("donation"))[0] == begins


@pytest.mark.parametrize("why", ["too many", "leaderboard unavailable", "from before a restore"])
async def test_rows_that_cannot_be_replayed_are_a_gap_with_their_address(harness: Harness, why: str) -> None:
    serve_log(harness, [log_row(n) for n in range(1, 602)] if why == "too many" else [])
    if why == "leaderboard unavailable":
        harness.leaderboard.answers[f"GET /v1/drives/{DRIVE}/events"] = (500, {})
    newest = 601 if why == "too many" else 90
    await harness.snapshot(newest)
    await until(lambda: hub_of(harness).known(DRIVE).tail == newest)  # type: ignore[union-attr]
    last, after = ("7000", 0) if why == "from before a restore" else ("50", 50)
    async with watching(harness, **{"Last-Event-ID": last}) as live:
        _, gap = await live.until("gap")
        assert gap == {"after": after, "events": f"/v1/drives/{DRIVE}/events?after={after}"}
        await harness.log(newest + 1)
        assert (await live.next())[:2] == ("donation", str(newest + 1))


async def test_new_client_gets_the_sequence_from_which_it_resumes(harness: Harness) -> None:
    """As an id without an event, which `EventSource` keeps and does not dispatch."""
    await harness.snapshot(7)
    await until(lambda: view_of(harness).tail == 7)
    for header, begins in ({}, b"id: 7\n"), ({"Last-Event-ID": "3"}, b"\n"):
        async with harness.session.get(LIVE, headers=header) as reply:
            assert (await reply.content.readline()).startswith(b"retry: ")
            assert await reply.content.readline() == begins


async def test_clients_that_resume_together_share_the_reads_of_the_log(harness: Harness) -> None:
    serve_log(harness, [log_row(n) for n in range(1, 131)])
    await harness.snapshot(130)
    await until(lambda: view_of(harness).tail == 130)
    harness.leaderboard.gate.clear()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(watching(harness, **{"Last-Event-ID": str(90 + n % 5)}))
            for n in range(20)
        ]
        await harness.log(131)  # arrives while the log is read
        harness.leaderboard.gate.set()
        for n, live in enumerate(clients):
            shown = [(await live.until("donation"))[0] for _ in range(91 + n % 5, 132)]
            assert shown == [str(sequence) for sequence in range(91 + n % 5, 132)]
        late = await stack.enter_async_context(watching(harness, **{"Last-Event-ID": "130"}))
        assert (await late.until("donation"))[0] == "131"
    assert harness.leaderboard.lines().count(f"GET /v1/drives/{DRIVE}/events") == 1


async def test_rows_that_were_read_are_not_replayed_for_longer_than_a_second(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names and messages may have been hidden since."""
    monkeypatch.setattr(replay, "KEPT_S", 0.0)
    serve_log(harness, [log_row(n) for n in range(1, 3)])
    await harness.snapshot(2)
    await until(lambda: view_of(harness).tail == 2)
    for _ in range(2):
        async with watching(harness, **{"Last-Event-ID": "1"}) as live:
            assert (await live.until("donation"))[0] == "2"
    assert harness.leaderboard.lines().count(f"GET /v1/drives/{DRIVE}/events") == 2


async def test_figures_without_their_rows_are_followed_by_a_gap(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows were published while this gateway did not receive the log, and no later one shows it."""
    monkeypatch.setattr(views, "ROWS_LATE_S", 0.1)
    async with watching(harness) as live:
        await live.next()
        await harness.log(1)
        await live.until("donation")
        await harness.snapshot(3)
        gap = (await live.until("gap"))[1]
        assert gap == {"after": 1, "events": f"/v1/drives/{DRIVE}/events?after=1"}
        await harness.log(3)  # is among those that the client was told to read
        await harness.log(4)
        assert (await live.until("donation"))[0] == "4"


async def test_first_row_of_a_new_client_is_preceded_by_a_gap_if_rows_are_missing(harness: Harness) -> None:
    await harness.snapshot(3)
    await until(lambda: view_of(harness).tail == 3)
    async with watching(harness) as live:
        await live.next()
        await harness.log(5)
        assert (await live.next())[2]["after"] == 3
        assert (await live.next())[:2] == ("donation", "5")


async def test_log_is_read_on_where_its_reader_failed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(harness) as live:
        await harness.log(1)
        await live.until("donation")
        hub, failed = hub_of(harness), asyncio.Event()
        receive = hub.receive_log

        async def fail_once(records: Sequence[Record]) -> None:
            monkeypatch.setattr(hub, "receive_log", receive)
            failed.set()
            await harness.log(3)  # while nobody follows the log
            raise BusUnavailable("closed")

        monkeypatch.setattr(hub, "receive_log", fail_once)
        await until(failed.is_set)
        assert (await live.until("donation"))[0] == "3"


async def test_milestone_frame_has_title_amount_and_moment(harness: Harness) -> None:
    """From the newest snapshot, and from pledges for a milestone that no snapshot has yet."""
    amount = {"currency": "USD", "value": "25.00"}
    async with watching(harness) as live:
        await live.next()
        shown = {}
        for sequence, title in ((1, None), (2, {"en": "A start"})):
            if title is not None:
                harness.pledges.answers["POST /internal/drives"] = (
                    200,
                    {"data": {DRIVE: drive() | {"milestones": [{"title": title, "amount": amount}]}}},
                )
            row = await harness.log(sequence, "milestone.reached")
            shown[sequence] = (await live.until("milestone"))[1]
            assert shown[sequence] == {"title": title, "reached_at": row.as_row()["at"], **row.as_row()}
        asked = harness.pledges.lines().count("POST /internal/drives")
        await harness.snapshot(3, milestones=[{"title": "Kept", "amount": amount, "reached_at": None}])
        await until(lambda: view_of(harness).milestones)
        await harness.log(3, "milestone.reached")
        assert (await live.until("milestone"))[1]["title"] == "Kept"
        assert harness.pledges.lines().count("POST /internal/drives") == asked


async def test_stream_requested_before_the_log_is_followed_waits_for_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_of(harness)
    await until(hub.streaming.is_set)
    hub.streaming.clear()
    requested = asyncio.create_task(harness.session.get(LIVE))
    await until(lambda: hub.streaming._waiters)  # type: ignore[attr-defined]
    monkeypatch.setattr("gateway.live.totals.STREAM_WAIT_S", 0.0)
    assert (await harness.get(LIVE))[0] == 503
    hub.streaming.set()
    async with await requested as reply:
        assert reply.status == 200


async def test_log_ahead_of_the_snapshots_is_not_treated_as_a_restore(harness: Harness) -> None:
    serve_log(harness, [log_row(n) for n in range(1, 6)])
    await harness.snapshot(3)
    await until(lambda: hub_of(harness).known(DRIVE).tail == 3)  # type: ignore[union-attr]
    async with watching(harness, **{"Last-Event-ID": "4"}) as live:
        await live.next()
        assert (await live.next())[:2] == ("donation", "5")


@pytest.mark.parametrize("last", ["", "-1", "x", "9" * 40, "٣"])
async def test_last_event_id_that_is_not_a_sequence_is_ignored(harness: Harness, last: str) -> None:
    async with watching(harness, **{"Last-Event-ID": last}) as live:
        await live.next()
        await harness.log(1)
        assert (await live.next())[:2] == ("donation", "1")


async def test_rows_without_subscribers_are_not_sent_later(harness: Harness) -> None:
    async with watching(harness) as live:
        await live.next()
    await until(lambda: hub_of(harness).fan_out.clients == 0)
    await harness.log(1)
    await harness.log(2)
    view = hub_of(harness).known("winter")
    assert view is not None
    await until(lambda: view.tail == 2)
    async with watching(harness) as live:
        await live.next()
        await harness.log(3)
        assert (await live.next())[:2] == ("donation", "3")


async def test_missing_rows_of_the_log_are_reported_as_a_gap(harness: Harness) -> None:
    async with watching(harness) as live:
        await harness.log(1)
        await live.until("donation")
        await harness.log(4)
        assert (await live.next())[2] == {"after": 1, "events": f"/v1/drives/{DRIVE}/events?after=1"}
        assert (await live.next())[:2] == ("donation", "4")


async def test_changed_state_is_pushed_without_a_new_snapshot(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        await harness.snapshot(1)
        await harness.heartbeat()
        async with watching(harness) as live:
            assert (await live.until("totals"))[1]["state"] == "live"
            clock.move(60)
            while (await live.until("totals"))[1]["state"] != "frozen":
                pass


def view_of(harness: Harness) -> DriveView:
    view = hub_of(harness).known("winter")
    assert view is not None
    return view


def rows(first: int, last: int, shown: bytes = b"donation;") -> list[Row]:
    return [Row(1, number, number, shown) for number in range(first, last + 1)]


async def test_of_many_rows_the_newest_are_sent_and_a_gap_for_the_rest(harness: Harness) -> None:
    async with watching(harness) as live:
        await harness.log(1)
        await live.until("donation")
        flood = [log_row(number) for number in range(2, 602)]
        messages = [
            Message(row.topic, row.key, ids.new("evt"), row.wire_name, row.to_bytes()) for row in flood
        ]
        await harness.bus.publish(messages)
        _, gap = await live.until("gap")
        assert gap["after"] == 1
        shown = [(await live.until("donation"))[0] for _ in range(connections.MAX_ROWS)]
        assert shown == [str(number) for number in range(602 - connections.MAX_ROWS, 602)]


async def test_the_frame_rate_follows_a_budget_of_sends(harness: Harness) -> None:
    fan_out = hub_of(harness).fan_out
    intervals = {}
    for clients in (0, 1, 250, 1000, 5000, 100_000):
        fan_out.clients = clients
        intervals[clients] = fan_out.push_interval_s()
    fan_out.clients = 0
    assert intervals == {0: 0.05, 1: 0.05, 250: 0.05, 1000: 0.2, 5000: 1.0, 100_000: 1.0}


async def test_totals_do_not_wait_for_the_slot_after_a_donation(harness: Harness) -> None:
    await harness.snapshot(1)
    fan_out, view, viewer = hub_of(harness).fan_out, view_of(harness), Viewer()
    view.connections.add(viewer.connection)
    view.rows = rows(1, 1)
    fan_out.push_rows(view)
    assert viewer.received() == b"donation;"
    fan_out.push_totals(view)
    assert viewer.received().startswith(b"event: totals")
    assert (view.rows_push, view.totals_push) == (None, None)


async def test_donations_do_not_wait_for_the_slot_after_totals(harness: Harness) -> None:
    await harness.snapshot(1)
    fan_out, view, viewer = hub_of(harness).fan_out, view_of(harness), Viewer()
    view.connections.add(viewer.connection)
    for _ in range(10):
        fan_out.push_totals(view)
    assert view.totals_push is not None
    viewer.received()
    view.rows = rows(1, 1)
    fan_out.push_rows(view)
    assert viewer.received() == b"donation;"
    view.totals_push.cancel()


async def test_with_many_clients_donations_and_totals_share_each_push(harness: Harness) -> None:
    await harness.snapshot(1)
    fan_out, view, viewer = hub_of(harness).fan_out, view_of(harness), Viewer()
    view.connections.add(viewer.connection)
    fan_out.clients = 1_000
    fan_out.push_totals(view)
    viewer.received()
    view.rows = rows(1, 1)
    fan_out.push_rows(view)
    assert view.rows_push is not None
    fan_out.push_totals(view)
    assert viewer.received() == b""
    fan_out._push_rows_now(view)  # as its timer does
    assert viewer.received().startswith(b"donation;event: totals")
    assert (view.rows_push, view.totals_push) == (None, None)
    fan_out.clients = 0


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=300))
def test_no_second_has_more_than_twenty_totals(gaps: list[float]) -> None:
    frames = TokenBucket(FRAMES_PER_S, FRAMES_AT_ONCE)
    sent: list[float] = []
    now = 0.0
    for gap in gaps:
        now = max(now + gap, frames.due(now + gap))
        frames.spend(now)
        sent.append(now)
    assert max(sum(at <= later < at + 1.0 for later in sent) for at in sent) <= 20


def test_few_totals_are_sent_at_once_and_many_evenly() -> None:
    frames = TokenBucket(18.0, 3)
    for _ in range(3):
        assert frames.due(5.0) == 5.0
        frames.spend(5.0)
    assert frames.due(5.0) == pytest.approx(5.0 + 1 / 18)
    frames.spend(5.0 + 1 / 18)
    assert frames.due(5.0 + 1 / 18) == pytest.approx(5.0 + 2 / 18)
    assert frames.due(9.0) == 9.0


async def test_drain_ends_every_stream_with_a_drain_event(harness: Harness) -> None:
    async with watching(harness) as one, watching(harness) as other:
        harness.service.drain.set()
        harness.server.should_exit = True
        for live in (one, other):
            assert (await live.until("drain"))[1] == {}
            with pytest.raises(EOFError):
                await live.next()
        await until(lambda: hub_of(harness).fan_out.clients == 0, 2)


async def test_client_beyond_the_limit_gets_503_with_retry_after(tmp_path: Path) -> None:
    async with gateway(tmp_path, live_clients=1) as harness, watching(harness) as live:
        await live.next()
        status, headers, _ = await harness.get(LIVE)
        assert (status, headers["Retry-After"]) == (503, "2")
