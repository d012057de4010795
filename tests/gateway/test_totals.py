from __future__ import annotations

import asyncio
import gzip
import json
from datetime import timedelta
from pathlib import Path

import pytest

from backbone import ids
from backbone.bus import Message
from backbone.bus_sqlite import SqliteBus
from backbone.clock import FrozenClock, rfc3339
from backbone.peer import InProcessPeer
from gateway.app import compose
from gateway.settings import GatewaySettings
from tests.gateway.stage import DRIVE, SmallService, Stage, gateway, hub_of
from tests.waiting import until

TOTALS = "/v1/drives/winter/totals"


async def sequence(stage: Stage, expected: int) -> None:
    """Wait until the totals have reached a sequence."""

    async def reached() -> bool:
        return bool((await stage.get(TOTALS))[2]["sequence"] == expected)

    await until(reached)


async def test_a_known_drive_without_a_snapshot_shows_zeros(stage: Stage) -> None:
    status, headers, totals = await stage.get("/v1/drives/spring/totals")
    assert status == 200
    assert totals["slug"] == "spring"
    assert totals["raised"] == {"currency": "USD", "value": "0.00"}
    assert (totals["donations"], totals["sequence"], totals["leaders"], totals["recent"]) == (0, 0, [], [])
    assert totals["milestones"][0]["reached_at"] is None
    assert headers["ETag"] == 'W/"1.0.0.catching_up"'


async def test_a_gateway_that_never_heard_of_a_drive_does_not_say_live(tmp_path: Path) -> None:
    """Neither just after its start nor while heartbeats come: nobody counted those zeros."""
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as stage:
        totals = (await stage.get("/v1/drives/spring/totals"))[2]
        assert (totals["state"], totals["as_of"]) == ("catching_up", rfc3339(ids.made_at(totals["drive"])))
        await stage.heartbeat()
        await stage.snapshot(7)
        await sequence(stage, 7)
        assert (await stage.get("/v1/drives/spring/totals"))[2]["state"] == "catching_up"
        clock.move(5.1)
        assert (await stage.get("/v1/drives/spring/totals"))[2]["state"] == "frozen"
        assert "spring" in (await stage.get("/v1/totals?drives=winter,spring"))[2]["data"][1]["slug"]


async def test_an_unknown_drive_is_404_and_pledges_is_asked_once(stage: Stage) -> None:
    before = len(stage.pledges.heard)
    answers = await asyncio.gather(*(stage.get("/v1/drives/nowhere/totals") for _ in range(20)))
    assert {(status, problem["type"]) for status, _, problem in answers} == {(404, "/problems/not-found")}
    assert len(stage.pledges.heard) == before + 1


async def test_totals_are_read_from_memory_by_id_and_by_slug(stage: Stage) -> None:
    await stage.snapshot(7, "175.00")
    await sequence(stage, 7)
    before = len(stage.pledges.heard) + len(stage.leaderboard.heard)
    by_slug = await stage.get(TOTALS)
    by_id = await stage.get(f"/v1/drives/{DRIVE}/totals")
    assert by_slug[2]["raised"] == by_id[2]["raised"] == {"currency": "USD", "value": "175.00"}
    assert {"epoch", "sequence", "as_of", "state", "lag_ms"} <= by_slug[2].keys()
    assert len(stage.pledges.heard) + len(stage.leaderboard.heard) == before


async def test_they_carry_the_headers_that_caches_need(stage: Stage) -> None:
    await stage.snapshot(7)
    await sequence(stage, 7)
    _, headers, _ = await stage.get(TOTALS)
    assert headers["ETag"] == 'W/"1.7.0.live"'
    assert (
        headers["Cache-Control"]
        == "public, max-age=1, s-maxage=1, stale-while-revalidate=5, stale-if-error=60"
    )
    assert headers["Vary"] == "Accept-Encoding"
    assert headers["Access-Control-Allow-Origin"] == "*"
    for known in (headers["ETag"], f'"x", {headers["ETag"]}', '"1.7.0.live"', "*", ' "a,b" ,W/"1.7.0.live"'):
        status, again, body = await stage.get(TOTALS, **{"If-None-Match": known})
        assert (status, body, again["ETag"]) == (304, None, headers["ETag"])
        assert "Content-Length" not in again
    for other in ('W/"1.6.0.live"', '""1.7.0.live""', "1.7.0.live", '"x1.7.0.live"', '"*"', ""):
        assert (await stage.get(TOTALS, **{"If-None-Match": other}))[0] == 200, other


async def test_gzip_is_sent_to_those_who_take_it(stage: Stage) -> None:
    await stage.snapshot(7)
    await sequence(stage, 7)
    stage.session._auto_decompress = False
    bodies = {}
    for accepted in ("gzip", "br, gzip;q=0.5", "identity", "gzip;q=0", ""):
        async with stage.session.get(TOTALS, headers={"Accept-Encoding": accepted}) as reply:
            bodies[accepted] = (reply.headers.get("Content-Encoding"), await reply.read())
    plain = bodies["identity"][1]
    assert {accepted for accepted, (encoding, _) in bodies.items() if encoding == "gzip"} == {
        "gzip",
        "br, gzip;q=0.5",
    }
    assert gzip.decompress(bodies["gzip"][1]) == plain


async def test_only_what_is_newer_is_taken(stage: Stage) -> None:
    other = "drv_" + "1" * 26
    taken = []
    for number, (epoch, sequence_number, revision) in enumerate(
        [(1, 5, 0), (1, 4, 9), (1, 5, 2), (1, 5, 1), (1, 3, 7), (2, 3, 0), (1, 99, 0)]
    ):
        await stage.snapshot(sequence_number, f"{number}.00", epoch=epoch, revision=revision)
        await stage.snapshot(number + 1, drive_id=other)  # behind it: once this is there, so is that

        async def heard(expected: int = number + 1) -> bool:
            return bool((await stage.get(f"/v1/drives/{other}/totals"))[2].get("sequence") == expected)

        await until(heard)
        _, headers, totals = await stage.get(f"/v1/drives/{DRIVE}/totals")
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


async def test_a_restart_begins_with_what_was_published_before(tmp_path: Path) -> None:
    async with gateway(tmp_path) as stage:
        await stage.snapshot(9)
        await sequence(stage, 9)
    async with gateway(tmp_path) as stage:
        assert (await stage.get(TOTALS))[2]["sequence"] == 9


async def test_the_state_says_how_fresh_the_figures_are(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as stage:
        await stage.snapshot(7)
        await stage.heartbeat()
        await sequence(stage, 7)
        clock.move(3.0)
        _, headers, totals = await stage.get(TOTALS)
        assert (totals["state"], totals["lag_ms"], headers["ETag"]) == ("live", 3000, 'W/"1.7.0.live"')
        clock.move(0.1)
        _, headers, totals = await stage.get(TOTALS)
        assert (totals["state"], totals["lag_ms"]) == ("catching_up", 3100)
        assert headers["ETag"] == 'W/"1.7.0.catching_up"'
        clock.move(2.0)
        assert (await stage.get(TOTALS))[2]["state"] == "frozen"
        await stage.heartbeat()

        async def lives() -> bool:
            return bool((await stage.get(TOTALS))[2]["state"] == "live")

        await until(lives)
        assert (await stage.get(TOTALS))[2]["lag_ms"] == 0


async def test_who_takes_over_knowing_less_of_the_freshness_does_not_set_it_back(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as stage:
        await stage.snapshot(7)
        await sequence(stage, 7)
        before = (await stage.get(TOTALS))[2]["as_of"]
        stage.clock = FrozenClock(clock.now() - timedelta(seconds=30))
        await stage.snapshot(8)
        await sequence(stage, 8)
        assert (await stage.get(TOTALS))[2]["as_of"] == before
        await stage.snapshot(2, epoch=2)  # restored from a backup: what was complete is lost
        await sequence(stage, 2)
        assert (await stage.get(TOTALS))[2]["as_of"] < before


async def test_old_heartbeats_of_a_process_that_lost_its_partitions_are_no_life(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as stage:
        await stage.snapshot(7)
        await stage.heartbeat()
        await sequence(stage, 7)
        stage.clock = FrozenClock(clock.now() - timedelta(seconds=1))
        clock.move(6)
        await stage.heartbeat()
        await stage.snapshot(8)
        await sequence(stage, 8)
        assert (await stage.get(TOTALS))[2]["state"] == "frozen"


async def test_a_stuck_leaderboard_that_still_beats_is_catching_up_not_frozen(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as stage:
        await stage.snapshot(7)
        await sequence(stage, 7)
        stuck = FrozenClock(clock.now())
        clock.move(60)
        stage.clock = stuck
        await stage.heartbeat()

        async def catches_up() -> bool:
            return bool((await stage.get(TOTALS))[2]["state"] == "catching_up")

        await until(catches_up)


async def test_heartbeats_of_before_a_restart_do_not_make_it_look_live(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as stage:
        await stage.snapshot(7)
        await stage.heartbeat()
        await sequence(stage, 7)
    clock.move(60)
    async with gateway(tmp_path, clock) as stage:
        assert (await stage.get(TOTALS))[2]["state"] == "frozen"


async def test_the_bytes_are_rebuilt_at_most_once_a_second_on_heartbeats(tmp_path: Path) -> None:
    clock = FrozenClock()
    async with gateway(tmp_path, clock) as stage:
        await stage.snapshot(7)
        await stage.heartbeat()
        await sequence(stage, 7)
        first = (await stage.get(TOTALS))[2]
        clock.move(0.9)
        assert (await stage.get(TOTALS))[2] == first
        clock.move(0.2)
        assert (await stage.get(TOTALS))[2]["lag_ms"] == 1100


async def test_several_drives_come_without_leaders_and_recent(stage: Stage) -> None:
    await stage.snapshot(7)
    await sequence(stage, 7)
    status, headers, body = await stage.get(f"/v1/totals?drives=winter,spring,{DRIVE},winter")
    assert status == 200
    assert [one["slug"] for one in body["data"]] == ["winter", "spring", "winter"]
    assert all("leaders" not in one and "recent" not in one for one in body["data"])
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert (await stage.get("/v1/totals?drives=winter,nowhere"))[0] == 404


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
async def test_one_to_fifty_drives_are_named(stage: Stage, query: str) -> None:
    status, _, problem = await stage.get(f"/v1/totals{query}")
    assert (status, problem["type"]) == (422, "/problems/invalid-request")


@pytest.mark.parametrize("ref", ["x" * 65, "x" * 5000, "win%20ter", "%D9%A1", "..", "%EF%BF%BD"])
async def test_what_cannot_name_a_drive_is_404_and_nobody_is_asked(stage: Stage, ref: str) -> None:
    before = len(stage.pledges.heard)
    status, _, problem = await stage.get(f"/v1/totals?drives=winter,{ref}")
    assert (status, problem["type"]) == (404, "/problems/not-found")
    assert len(stage.pledges.heard) == before


async def test_unknown_drives_are_asked_for_together_once_and_their_addresses_limited(
    tmp_path: Path,
) -> None:
    proxied = {"trusted_proxies": "127.0.0.1", "limit_address_per_s": 1.0, "limit_burst_s": 3.0}
    async with gateway(tmp_path, **proxied) as stage:
        await stage.snapshot(7)
        await sequence(stage, 7)
        client = {"X-Forwarded-For": "203.0.113.7"}
        before = len(stage.pledges.heard)
        names = ",".join(f"nowhere-{number}" for number in range(49))
        answers = await asyncio.gather(
            *(stage.get(f"/v1/totals?drives=winter,{names}", **client) for _ in range(2))
        )
        assert [answer[0] for answer in answers] == [404, 404]
        asked = stage.pledges.heard[before:]
        assert [heard.path for heard in asked] == ["/internal/drives"]
        assert len(json.loads(asked[0].body)["refs"]) == 49
        assert (await stage.get(f"/v1/totals?drives={names}", **client))[0] == 404  # known to be unknown
        assert len(stage.pledges.heard) == before + 1
        statuses = [(await stage.get(f"/v1/totals?drives=no-{n}", **client))[0] for n in range(4)]
        assert statuses[-1] == 429
        assert (await stage.get("/v1/drives/no-9/totals", **client))[0] == 429
        # What is known costs nobody anything.
        assert (await stage.get("/v1/totals?drives=winter", **client))[0] == 200
        assert (await stage.get("/v1/totals?drives=no-9", **{"X-Forwarded-For": "203.0.113.8"}))[0] == 404


async def test_what_is_remembered_of_unknown_drives_is_bounded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.live.MOST_UNKNOWN", 10)
    for number in range(3):
        names = ",".join(f"nowhere-{number}-{one}" for one in range(50))
        assert (await stage.get(f"/v1/totals?drives={names}"))[0] == 404
    assert len(hub_of(stage)._unknown) == 10


async def test_before_all_snapshots_were_read_totals_are_503(tmp_path: Path) -> None:
    bus = SqliteBus(tmp_path / "bus.db", synchronous="OFF")
    peers = dict.fromkeys(("pledges", "payments", "leaderboard"), InProcessPeer(SmallService()))
    service = compose(GatewaySettings(data_dir=tmp_path), bus, peers)
    for path in (TOTALS, "/v1/totals", "/v1/drives/winter/live"):
        reply = await InProcessPeer(service.app).request("GET", path, headers={}, query="drives=winter")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    await service.close()
    await bus.close()


async def test_a_snapshot_nobody_can_read_is_left_out_and_the_next_one_counts(stage: Stage) -> None:
    broken = Message("snapshots", DRIVE, ids.new("evt"), "leaderboard.snapshot_taken.v1", b"{}")
    unknown = Message("snapshots", "x", ids.new("evt"), "leaderboard.something.v9", b"{}")
    await stage.bus.publish([broken, unknown], lossy=True)
    await stage.snapshot(2)
    await sequence(stage, 2)
