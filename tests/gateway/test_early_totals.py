"""Totals answered before the application is called: the same responses, for ordinary requests only."""

from __future__ import annotations

import asyncio

import pytest

from backbone.hex_source import HexSource
from gateway.live.early_totals import EarlyTotals
from tests.gateway.harness import DRIVE, Harness, hub_of
from tests.gateway.test_http import send_raw
from tests.gateway.test_totals import TOTALS, sequence
from tests.waiting import PATIENCE_S

APPLICATION = b"Content-Length: 0\r\n"
"""A header that no early answer is given to, so that the application answers the same request."""
PLAIN = ((b"host", b"x"),)
CLOSING = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OWN = (b"date: ", b"x-request-id: ", b"traceparent: ")


def get(*fields: bytes, target: str = TOTALS) -> bytes:
    """A GET request whose header lines are `fields`."""
    return b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (target.encode(), b"".join(fields))


def split(answers: bytes) -> tuple[set[bytes], bytes]:
    """The head of the first response as its lines without those that differ each time, and what follows."""
    head, _, rest = answers.partition(b"\r\n\r\n")
    return {line for line in head.split(b"\r\n") if not line.startswith(OWN)}, rest.partition(b"HTTP/1.1")[0]


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Accept-Encoding: gzip, br\r\n",
        b"Accept-Encoding: gzip;q=0\r\n",
        b'If-None-Match: W/"1.7.0.live"\r\n',
        b'If-None-Match: "x", "1.7.0.live"\r\nAccept-Encoding: gzip\r\n',
        b'If-None-Match: "1.6.0.live"\r\n',
    ],
)
async def test_early_answer_is_that_of_the_application(harness: Harness, fields: bytes) -> None:
    await harness.heartbeat()
    await harness.snapshot(7)
    await sequence(harness, 7)
    early = split(await send_raw(harness, get(fields) + CLOSING))
    later = split(await send_raw(harness, get(fields, APPLICATION) + CLOSING))
    assert early == later


async def test_only_ordinary_reads_of_held_totals_are_answered_early(harness: Harness) -> None:
    await harness.snapshot(7)
    await sequence(harness, 7)
    await harness.get("/v1/drives/spring/totals")
    answer = EarlyTotals(hub_of(harness)).answer
    for target in (TOTALS, f"/v1/drives/{DRIVE}/totals", f"{TOTALS}?t=1700000000000"):
        found = answer(target.encode(), PLAIN)
        assert found is not None, target
        assert found[0].startswith(b"HTTP/1.1 200 OK\r\n")
    others = ("/v1/drives/spring/totals", "/v1/drives/nowhere/totals", "/v1/drives/winter/live", "/v1/totals",
              "/v1/drives/wint%65r/totals", f"{TOTALS}?a=%00", f"{TOTALS}/", f"{TOTALS}#a")  # fmt: skip
    for target in others:
        assert answer(target.encode(), PLAIN) is None, target
    for fields in (((b"host", b"x"), (b"host", b"y")), (*PLAIN, (b"transfer-encoding", b"chunked"))):
        assert answer(TOTALS.encode(), fields) is None


async def test_ids_of_an_early_answer_follow_the_request(harness: Harness) -> None:
    await harness.snapshot(7)
    await sequence(harness, 7)
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    headers = (await harness.get(TOTALS, **{"X-Request-Id": "mine-1"}, traceparent=trace))[1]
    assert headers["X-Request-Id"] == "mine-1"
    assert headers["traceparent"].startswith(trace[:36])
    assert headers["traceparent"] != trace
    assert "Date" in headers
    again = [(await harness.get(TOTALS, **{"X-Request-Id": "a\tb"}))[1]["X-Request-Id"] for _ in range(3)]
    assert len({*again, "a\tb"}) == 4


async def test_pipelined_reads_are_answered_in_order(harness: Harness) -> None:
    await harness.snapshot(7)
    await sequence(harness, 7)
    slow = get(target="/v1/drives/nowhere/totals")
    answers = await send_raw(harness, get() + slow + get() + slow + get(APPLICATION) + get() + CLOSING)
    statuses = [answer[:3] for answer in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200", b"404", b"200", b"200", b"200"]


async def test_client_that_does_not_read_is_answered_no_further(harness: Harness) -> None:
    """The answers that wait for one client stay within a bound, and all arrive once it reads."""
    await harness.snapshot(7)
    await sequence(harness, 7)
    count = 8_000
    reader, writer = await asyncio.open_connection("127.0.0.1", harness.port, limit=2**16)
    writer.write(get() * count + CLOSING)
    answers, highest = bytearray(), 0
    async with asyncio.timeout(PATIENCE_S):
        while part := await reader.read(2**18):
            answers += part
            connections = tuple(harness.server.server_state.connections)
            highest = max(highest, *(one.transport.get_write_buffer_size() for one in connections), 0)
    writer.close()
    assert answers.count(b"HTTP/1.1 200 OK") == count + 1
    assert highest < 500_000


async def test_request_after_an_early_answer_still_has_its_body(harness: Harness) -> None:
    await harness.snapshot(7)
    await sequence(harness, 7)
    post = b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde"
    answers = await send_raw(harness, get() + post + CLOSING)
    assert answers.count(b"HTTP/1.1 ") == 3
    assert harness.payments.received[-1].body == b"abcde"


def test_identifiers_differ_and_have_their_length() -> None:
    source = HexSource(12)
    found = [source.take() for _ in range(1000)]
    assert len(set(found)) == 1000
    assert {len(one) for one in found} == {24}
