"""What the viewer that holds a live stream must have received at the end of a simulated run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from backbone.http.service_client import ServiceResponse, ServiceUnavailable
from simulation.event_stream import Stream
from simulation.live_viewer import LiveViewer
from simulation.trace import Trace
from simulation.virtual_time import repeatable, run

LOG = [
    {"sequence": number, "type": kind, "amount": number, "raised_after": {"value": "1.00"}}
    for number, kind in enumerate(
        ("drive.opened", "donation.counted", "donation.refunded", "milestone.reached", "donation.counted"), 1
    )
]


class _Gateway:
    """Answers requests for the log, every other one with a failure."""

    def __init__(self) -> None:
        self.asked = 0

    async def request(self, method: str, path: str, *, headers: Any, query: str) -> ServiceResponse:
        self.asked += 1
        if self.asked % 2:
            raise ServiceUnavailable("simulated")
        assert (method, path) == ("GET", "/log")
        after = int(query.removeprefix("after=").partition("&")[0])
        return ServiceResponse(200, {}, json.dumps({"data": LOG[after:]}).encode())


def _event(name: str, data: Mapping[str, Any], identifier: int | None = None) -> bytes:
    head = b"" if identifier is None else b"id: %d\n" % identifier
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), head, json.dumps(data).encode())


def row(sequence: int, **other: Any) -> bytes:
    return _event("donation", {**LOG[sequence - 1], "name": "Ada", **other}, sequence)


def totals(sequence: int) -> bytes:
    shown = {"epoch": 1, "sequence": sequence, "as_of": "2022-01-07T12:00:00Z", "raised": {"value": "1.00"}}
    return _event("totals", shown)


POSITION = b"retry: 1000\nid: 1\n\n"
KEEPALIVE = b":\n\n"
GAP = _event("gap", {"after": 2, "events": "/log?after=2"})
DRAIN = _event("drain", {})


def _received(
    *events: bytes,
    then: Callable[[Stream, LiveViewer], None] | None = None,
    log: Callable[[], Sequence[Mapping[str, Any]]] = lambda: LOG,
) -> Sequence[str]:
    """The violations after these events, in parts as a network may divide them."""

    async def read_log() -> Sequence[Mapping[str, Any]]:
        return log()

    async def main() -> Sequence[str]:
        gateway = _Gateway()
        system = SimpleNamespace(
            run=SimpleNamespace(trace=Trace()), request_client=lambda name: gateway, gateway=gateway
        )
        viewer = LiveViewer(system, 1)  # type: ignore[arg-type]
        connection = SimpleNamespace(end=lambda error: None)
        stream = viewer._stream = Stream(viewer, lambda stream: connection)  # type: ignore[arg-type,return-value]
        body = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in events)
        whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body
        for at in range(0, len(whole), 7):
            stream.received(whole[at : at + 7])
        if then is not None:
            then(stream, viewer)
        await asyncio.sleep(1)
        return await viewer.settle(read_log)

    with repeatable(1) as loop:
        found: Sequence[str] = run(loop, main())
    return found


def test_a_viewer_that_received_every_row_with_a_frame_misses_nothing() -> None:
    assert _received(POSITION, totals(1), row(2), KEEPALIVE, totals(4), row(4), row(5), totals(5)) == []


def test_a_row_that_is_logged_while_the_viewer_is_waited_for_is_in_the_log() -> None:
    growing = iter([LOG[:4]])
    received = (POSITION, row(2), row(4), row(5), totals(5))
    assert _received(*received, log=lambda: next(growing, LOG)) == []


def test_rows_before_the_position_where_a_viewer_began_are_not_missed() -> None:
    assert _received(POSITION.replace(b"id: 1", b"id: 2"), row(4), row(5), totals(5)) == []


def test_rows_that_were_read_after_a_gap_are_not_missed() -> None:
    assert _received(POSITION, row(2), GAP, totals(5)) == []


@pytest.mark.parametrize(
    ("events", "violation"),
    [
        ((POSITION, row(4), row(5), totals(5)), "the live viewer missed [2] of [2, 4, 5], began at 1"),
        ((POSITION, row(2), row(5), totals(5)), "the live viewer missed [4] of [2, 4, 5], began at 1"),
        ((POSITION, row(2), row(4), row(4), row(5), totals(5)), "the stream sent 4 as 4 after 4"),
        ((POSITION, row(4), row(2), row(5), totals(5)), "the stream sent 2 as 2 after 4"),
        ((POSITION, row(2), row(4), row(5), totals(4)), "the stream's totals are at 4 of 5"),
        ((POSITION, row(2), totals(5), row(4), row(5), totals(4), totals(5)), "the totals went back"),
        ((POSITION, row(2), row(4, amount=7), row(5), totals(5)), "the stream showed"),
        ((totals(5),), "the live viewer has no stream"),
    ],
)
def test_what_a_viewer_must_not_receive_is_reported(events: Sequence[bytes], violation: str) -> None:
    (found,) = _received(*events)
    assert found.startswith(violation)


@pytest.mark.parametrize(
    ("last", "violations"), [(DRAIN, []), (KEEPALIVE, ["a stream ended without a drain"])]
)
def test_a_stream_ends_with_a_drain(last: bytes, violations: list[str]) -> None:
    def end(stream: Stream, viewer: LiveViewer) -> None:
        stream.received(b"0\r\n\r\n")
        assert stream.ended.done()
        viewer._note_end(stream)

    received = (POSITION, row(2), row(4), row(5), totals(5), last)
    assert _received(*received, then=end) == violations


@pytest.mark.parametrize(
    ("refused", "request_line", "header"),
    [
        (False, b"GET /v1/drives/winter/live HTTP/1.1\r\n", True),
        (True, b"GET /v1/drives/winter/live?last_event_id=2 HTTP/1.1\r\n", False),
    ],
)
def test_a_viewer_resumes_after_the_last_id(refused: bool, request_line: bytes, header: bool) -> None:
    viewer = LiveViewer(SimpleNamespace(run=SimpleNamespace(trace=SimpleNamespace(note=print))), 1)  # type: ignore[arg-type]
    assert b"vent" not in viewer._request()
    viewer.take_position(2)
    viewer._refused = refused
    assert viewer._request().startswith(request_line)
    assert (b"\r\nLast-Event-ID: 2\r\n" in viewer._request()) is header
