from __future__ import annotations

import asyncio
import gzip
import json
from datetime import timedelta
from pathlib import Path

import pytest

from backbone import ids
from backbone.bus.protocol import Message, Partition, Record
from backbone.bus.sqlite import SqliteBus
from backbone.clock import FrozenClock, rfc3339
from backbone.http.service_client import InProcessServiceClient
from backbone.messaging.lossy import message_of
from gateway.app import compose
from gateway.settings import GatewaySettings
from tests.gateway.harness import DRIVE, FakeService, Harness, gateway, hub_of
from tests.waiting import until

TOTALS = "/v1/drives/winter/totals"


async def sequence(harness: Harness, expected: int) -> None:
    """Wait until the totals have reached a sequence."""

    async def reached() -> bool:
        return bool((await harness.get(TOTALS))[2]["sequence"] == expected)

    await until(reached)


async def test_known_drive_without_a_snapshot_has_zero_totals(harness: Harness) -> None:
    status, headers, totals = await harness.get("/v1/drives/spring/totals")
    assert status == 200
    assert totals["slug"] == "spring"
    assert totals["raised"] == {"currency": "USD", "value": "0.00"}
    assert (totals["donations"], totals["sequence"], totals["leaders"], totals["recent"]) == (0, 0, [], [])
    assert totals["milestones"][0]["reached_at"] is None
    assert headers["ETag"] == 'W/"1.0.0.catching_up"'


async def test_drive_without_a_snapshot_is_not_live(tmp_path: Path) -> None:
    """Zeros without a snapshot are not live, neither after the start nor while heartbeats arrive."""
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        totals = (await harness.get("/v1/drives/spring/totals"))[2]
        assert (totals["state"], totals["as_of"]) == ("catching_up", rfc3339(ids.created_at(totals["drive"])))
        await harness.heartbeat()
        await harness.snapshot(7)
        await sequence(harness, 7)
        assert (await harness.get("/v1/drives/spring/totals"))[2]["state"] == "catching_up"
        clock.move(5.1)
        assert (await harness.get("/v1/drives/spring/totals"))[2]["state"] == "frozen"
        assert "spring" in (await harness.get("/v1/totals?drives=winter,spring"))[2]["data"][1]["slug"]


async def test_unknown_drive_is_404_after_one_lookup(harness: Harness) -> None:
    before = len(harness.pledges.received)
    answers = await asyncio.gather(*(harness.get("/v1/drives/nowhere/totals") for _ in range(20)))
    assert {(status, problem["type"]) for status, _, problem in answers} == {(404, "/problems/not-found")}
    assert len(harness.pledges.received) == before + 1


async def test_totals_are_served_from_memory_by_id_and_slug(harness: Harness) -> None:
    await harness.snapshot(7, "175.00")
    await sequence(harness, 7)
    before = len(harness.pledges.received) + len(harness.leaderboard.received)
    by_slug = await harness.get(TOTALS)
    by_id = await harness.get(f"/v1/drives/{DRIVE}/totals")
    assert by_slug[2]["raised"] == by_id[2]["raised"] == {"currency": "USD", "value": "175.00"}
    assert {"epoch", "sequence", "as_of", "state", "lag_ms"} <= by_slug[2].keys()
    assert len(harness.pledges.received) + len(harness.leaderboard.received) == before


async def test_totals_carry_etag_cache_control_and_vary(harness: Harness) -> None:
    await harness.snapshot(7)
    await sequence(harness, 7)
    _, headers, _ = await harness.get(TOTALS)
    assert headers["ETag"] == 'W/"1.7.0.live"'
    assert (
        headers["Cache-Control"]
        == "public, max-age=1, s-maxage=1, stale-while-revalidate=5, stale-if-error=60"
    )
    assert headers["Vary"] == "Accept-Encoding"
    assert headers["Access-Control-Allow-Origin"] == "*"
    for known in (headers["ETag"], f'"x", {headers["ETag"]}', '"1.7.0.live"', "*", ' "a,b" ,W/"1.7.0.live"'):
        status, again, body = await harness.get(TOTALS, **{"If-None-Match": known})
        assert (status, body, again["ETag"]) == (304, None, headers["ETag"])
        assert "Content-Length" not in again
    for other in ('W/"1.6.0.live"', '""1.7.0.live""', "1.7.0.live", '"x1.7.0.live"', '"*"', ""):
        assert (await harness.get(TOTALS, **{"If-None-Match": other}))[0] == 200, other


async def test_gzip_is_sent_if_accepted(harness: Harness) -> None:
    await harness.snapshot(7)
    await sequence(harness, 7)
    harness.session._auto_decompress = False
    bodies = {}
    for accepted in ("gzip", "br, gzip;q=0.5", "identity", "gzip;q=0", ""):
        async with harness.session.get(TOTALS, headers={"Accept-Encoding": accepted}) as reply:
            bodies[accepted] = (reply.headers.get("Content-Encoding"), await reply.read())
    plain = bodies["identity"][1]
    assert {accepted for accepted, (encoding, _) in bodies.items() if encoding == "gzip"} == {
        "gzip",
        "br, gzip;q=0.5",
    }
    assert gzip.decompress(bodies["gzip"][1]) == plain


async def test_older_snapshot_is_ignored(harness: Harness) -> None:
    other = "drv_" + "1" * 26
    taken = []
    for number, (epoch, sequence_number, revision) in enumerate(
        [(1, 5, 0), (1, 4, 9), (1, 5, 2), (1, 5, 1), (1, 3, 7), (2, 3, 0), (1, 99, 0)]
    ):
        await harness.snapshot(sequence_number, f"{number}.00", epoch=epoch, revision=revision)
        await harness.snapshot(
            number + 1, drive_id=other
        )  # published later: when this one is read, so is the other

        async def received(expected: int = number + 1) -> bool:
            return bool((await harness.get(f"/v1/drives/{other}/totals"))[2].get("sequence") == expected)

        await until(received)
        _, headers, totals = await harness.get(f"/v1/drives/{DRIVE}/totals")
        taken.append((headers["ETag"], totals["raised"]["value"]))
    assert taken == [
        ('W/"1.5.0.live"', "0.00"),
        ('W/"1.5.0.live"', "0.00"),
        ('W/"1.5.2.live"', "2.00"),
        ('W/"1.5.2.live"', "2.00"),
        ('W/"1.5.2.live"', "2.00"),
        ('W/"2.3.0.live"', "5.00"),
        ('W/"2.3.0.live"', "5.00"),
    ]


async def test_restart_reads_published_snapshots(tmp_path: Path) -> None:
    async with gateway(tmp_path) as harness:
        await harness.snapshot(9)
        await sequence(harness, 9)
    async with gateway(tmp_path) as harness:
        assert (await harness.get(TOTALS))[2]["sequence"] == 9


async def test_state_follows_the_freshness_of_the_figures(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        await harness.snapshot(7)
        await harness.heartbeat()
        await sequence(harness, 7)
        clock.move(3.0)
        _, headers, totals = await harness.get(TOTALS)
        assert (totals["state"], totals["lag_ms"], headers["ETag"]) == ("live", 3000, 'W/"1.7.0.live"')
        clock.move(0.1)
        _, headers, totals = await harness.get(TOTALS)
        assert (totals["state"], totals["lag_ms"]) == ("catching_up", 3100)
        assert headers["ETag"] == 'W/"1.7.0.catching_up"'
        clock.move(2.0)
        assert (await harness.get(TOTALS))[2]["state"] == "frozen"
        await harness.heartbeat()

        async def lives() -> bool:
            return bool((await harness.get(TOTALS))[2]["state"] == "live")

        await until(lives)
        assert (await harness.get(TOTALS))[2]["lag_ms"] == 0


async def test_as_of_does_not_move_back_after_a_takeover(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        await harness.snapshot(7)
        await sequence(harness, 7)
        before = (await harness.get(TOTALS))[2]["as_of"]
        harness.clock = FrozenClock(clock.now() - timedelta(seconds=30))
        await harness.snapshot(8)
        await sequence(harness, 8)
        assert (await harness.get(TOTALS))[2]["as_of"] == before
        await harness.snapshot(2, epoch=2)  # restored from a backup: completeness is lost
        await sequence(harness, 2)
        assert (await harness.get(TOTALS))[2]["as_of"] < before


async def test_of_snapshots_read_at_once_the_newest_is_shown_with_their_latest_as_of(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        taken = []
        for sequence, later_s in ((7, 1), (8, -1), (7, 1)):  # a restarted leaderboard knows an earlier moment
            clock.move(later_s)
            message = message_of(harness.snapshot_taken(sequence))
            taken.append(Record(Partition("snapshots", 0), 0, message.key, "", message.name, message.value))
        hub_of(harness).receive_snapshots(taken)
        shown = (await harness.get(TOTALS))[2]
        assert (shown["sequence"], shown["as_of"]) == (8, rfc3339(clock.now()))


async def test_heartbeat_older_than_the_last_one_is_ignored(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        await harness.snapshot(7)
        await harness.heartbeat()
        await sequence(harness, 7)
        harness.clock = FrozenClock(clock.now() - timedelta(seconds=1))
        clock.move(6)
        await harness.heartbeat()
        await harness.snapshot(8)
        await sequence(harness, 8)
        assert (await harness.get(TOTALS))[2]["state"] == "frozen"


async def test_heartbeats_without_progress_mean_catching_up(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        await harness.snapshot(7)
        await sequence(harness, 7)
        stuck = FrozenClock(clock.now())
        clock.move(60)
        harness.clock = stuck
        await harness.heartbeat()

        async def catches_up() -> bool:
            return bool((await harness.get(TOTALS))[2]["state"] == "catching_up")

        await until(catches_up)


async def test_heartbeats_from_before_a_restart_do_not_mean_live(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        await harness.snapshot(7)
        await harness.heartbeat()
        await sequence(harness, 7)
    clock.move(60)
    async with gateway(tmp_path, clock) as harness:
        assert (await harness.get(TOTALS))[2]["state"] == "frozen"


async def test_heartbeats_rebuild_the_bytes_at_most_once_a_second(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as harness:
        await harness.snapshot(7)
        await harness.heartbeat()
        await sequence(harness, 7)
        first = (await harness.get(TOTALS))[2]
        clock.move(0.9)
        assert (await harness.get(TOTALS))[2] == first
        clock.move(0.2)
        assert (await harness.get(TOTALS))[2]["lag_ms"] == 1100


async def test_totals_of_several_drives_omit_leaders_and_recent(harness: Harness) -> None:
    await harness.snapshot(7)
    await sequence(harness, 7)
    status, headers, body = await harness.get(f"/v1/totals?drives=winter,spring,{DRIVE},winter")
    assert status == 200
    assert [one["slug"] for one in body["data"]] == ["winter", "spring", "winter"]
    assert all("leaders" not in one and "recent" not in one for one in body["data"])
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert (await harness.get("/v1/totals?drives=winter,nowhere"))[0] == 404


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?drives=",
        "?drives=,,",
        "?drives=" + ",".join(f"d{n}" for n in range(51)),
        "?drives=%00",
        "?drives=winter,a%00b",
        "?drives=%ED%A0%80",
        "?drives=winter,%FF",
    ],
)
async def test_number_of_drives_is_1_to_50(harness: Harness, query: str) -> None:
    status, _, problem = await harness.get(f"/v1/totals{query}")
    assert (status, problem["type"]) == (422, "/problems/invalid-request")


@pytest.mark.parametrize("ref", ["x" * 65, "x" * 5000, "win%20ter", "%D9%A1", "..", "%EF%BF%BD"])
async def test_malformed_drive_reference_is_404_without_a_lookup(harness: Harness, ref: str) -> None:
    before = len(harness.pledges.received)
    status, _, problem = await harness.get(f"/v1/totals?drives=winter,{ref}")
    assert (status, problem["type"]) == (404, "/problems/not-found")
    assert len(harness.pledges.received) == before


async def test_unknown_drives_are_looked_up_together_once_and_count_against_the_address(
    tmp_path: Path,
) -> None:
    proxied = {"trusted_proxies": "127.0.0.1", "limit_address_per_s": 1.0, "limit_burst_s": 3.0}
    async with gateway(tmp_path, **proxied) as harness:
        await harness.snapshot(7)
        await sequence(harness, 7)
        client = {"X-Forwarded-For": "203.0.113.7"}
        before = len(harness.pledges.received)
        names = ",".join(f"nowhere-{number}" for number in range(49))
        answers = await asyncio.gather(
            *(harness.get(f"/v1/totals?drives=winter,{names}", **client) for _ in range(2))
        )
        assert [answer[0] for answer in answers] == [404, 404]
        asked = harness.pledges.received[before:]
        assert [received.path for received in asked] == ["/internal/drives"]
        assert len(json.loads(asked[0].body)["refs"]) == 49
        assert (await harness.get(f"/v1/totals?drives={names}", **client))[0] == 404  # remembered as unknown
        assert len(harness.pledges.received) == before + 1
        statuses = [(await harness.get(f"/v1/totals?drives=no-{n}", **client))[0] for n in range(4)]
        assert statuses[-1] == 429
        assert (await harness.get("/v1/drives/no-9/totals", **client))[0] == 429
        # Known drives do not count against the limit.
        assert (await harness.get("/v1/totals?drives=winter", **client))[0] == 200
        assert (await harness.get("/v1/totals?drives=no-9", **{"X-Forwarded-For": "203.0.113.8"}))[0] == 404


async def test_number_of_remembered_unknown_drives_is_bounded(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.live.lookups.MOST_UNKNOWN", 10)
    for number in range(3):
        names = ",".join(f"nowhere-{number}-{one}" for one in range(50))
        assert (await harness.get(f"/v1/totals?drives={names}"))[0] == 404
    assert len(hub_of(harness).lookups._unknown) == 10


async def test_totals_are_503_until_all_snapshots_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.live.totals.STREAM_WAIT_S", 0.0)
    bus = SqliteBus(tmp_path / "bus.db", synchronous="OFF")
    service_clients = dict.fromkeys(
        ("pledges", "payments", "leaderboard"), InProcessServiceClient(FakeService())
    )
    service = compose(GatewaySettings(data_dir=tmp_path), bus, service_clients)
    for path in (TOTALS, "/v1/totals", "/v1/drives/winter/live"):
        reply = await InProcessServiceClient(service.app).request(
            "GET", path, headers={}, query="drives=winter"
        )
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    await service.close()
    await bus.close()


async def test_undecodable_snapshot_is_skipped(harness: Harness) -> None:
    broken = Message("snapshots", DRIVE, ids.new("evt"), "leaderboard.snapshot_taken.v1", b"{}")
    unknown = Message("snapshots", "x", ids.new("evt"), "leaderboard.something.v9", b"{}")
    await harness.bus.publish([broken, unknown], lossy=True)
    await harness.snapshot(2)
    await sequence(harness, 2)
