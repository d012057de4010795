"""A drive under faults: each process is killed, stopped or disconnected in turn, on Kafka and PostgreSQL.

All tests use one stack. Each ends once the system is healthy: every process is ready, every started donor has
donated, each donation is counted and shown, and the state is `live`. The last tests check all observations.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import asyncpg
import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stack.topics import read_topics
from tests.conftest import Recovered
from tests.stack.drive_under_faults import SERVICES, SESSION_S, Drive, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

STOPPED_S = 30.0
"""How long an engine is stopped."""
FROZEN_AFTER_S = 12.0
"""Without a heartbeat for 5 s the totals are `frozen`; the rest is for a gateway that is slow to process the
last one."""

LIVE_WITHIN_S = 4.1
"""`live` figures are at most 3 s old, and encoded at most a second earlier."""

ANSWER_WITHIN_S = 10.0

Recovery = Callable[[str, float], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def drive(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Drive]:
    """Donors donate from the first test on, until the books are compared."""
    async with running(tmp_path_factory.mktemp("faults")) as drive:
        yield drive


@pytest.fixture
def recovery(drive: Drive, recovered: Recovered) -> Recovery:
    """Wait until the system is healthy after a fault that is over, and report how long that took."""

    async def report(what: str, over_at: float) -> None:
        await drive.wait_until_healthy()
        took = time.monotonic() - over_at
        recovered(f"{what}: healthy again after {took:.1f} s (session {SESSION_S:.0f} s)")

    return report


@pytest.mark.parametrize("service", SERVICES)
async def test_killed_service_recovers_and_every_donation_counts(
    drive: Drive, recovery: Recovery, service: str
) -> None:
    killed = drive.send_signal(service, signal.SIGKILL)
    over_at = time.monotonic()
    await drive.eventually(f"{service} is restarted", lambda: drive.pid(service) != killed)
    await recovery(f"{service} killed", over_at)


async def test_pledges_are_accepted_without_kafka_and_totals_are_frozen(
    drive: Drive, recovery: Recovery
) -> None:
    drive.send_signal("kafka", signal.SIGSTOP)
    stopped_at, began = time.time(), time.monotonic()
    try:
        while time.monotonic() - began < STOPPED_S:
            status, took_s = await drive.make_unpaid_pledge()
            assert status == 201, f"{status} after {time.monotonic() - began:.1f} s without Kafka"
            assert took_s < ANSWER_WITHIN_S
            await asyncio.sleep(1.0)  # one request a second while Kafka is stopped
    finally:
        drive.send_signal("kafka", signal.SIGCONT)
    over_at, resumed_at = time.monotonic(), time.time()
    await recovery(f"kafka stopped for {STOPPED_S:.0f} s", over_at)

    asked = [
        one
        for one in drive.poller.observations
        if stopped_at + FROZEN_AFTER_S < one.asked_at and one.seen_at < resumed_at
    ]
    assert len(asked) > 10, "the totals were not available without Kafka"
    assert {one.state for one in asked} == {"frozen"}


async def test_every_service_reconnects_to_a_killed_broker(drive: Drive, recovery: Recovery) -> None:
    killed = drive.send_signal("kafka", signal.SIGKILL)
    over_at = time.monotonic()
    statuses = [(await drive.make_unpaid_pledge())[0] for _ in range(3)]
    assert statuses == [201, 201, 201]
    await drive.eventually("kafka is restarted", lambda: drive.pid("kafka") != killed)
    await recovery("kafka killed", over_at)


async def test_killed_postgresql_loses_nothing_and_every_pool_recovers(
    drive: Drive, recovery: Recovery
) -> None:
    killed = drive.pid("postgres")
    drive.kill_with_children("postgres")
    over_at = time.monotonic()
    assert (await drive.make_unpaid_pledge())[0] in (201, 503)
    await drive.eventually("postgresql is restarted", lambda: drive.pid("postgres") != killed)
    await recovery("postgresql killed", over_at)


async def test_hung_postgresql_is_answered_with_503_in_time_and_recovers(
    drive: Drive, recovery: Recovery
) -> None:
    drive.signal_with_children("postgres", signal.SIGSTOP)
    began = time.monotonic()
    try:
        while time.monotonic() - began < STOPPED_S:
            status, took_s = await drive.make_unpaid_pledge()
            assert status == 503, f"{status} after {time.monotonic() - began:.1f} s without PostgreSQL"
            assert took_s < ANSWER_WITHIN_S + 2.0  # the gateway's timeout for pledges, and its own reply
        assert await drive.count_ready() == 1  # the gateway, which has its keys in memory
    finally:
        drive.signal_with_children("postgres", signal.SIGCONT)
    await recovery(f"postgresql stopped for {STOPPED_S:.0f} s", time.monotonic())


async def test_repeatedly_cut_connections_are_reopened(drive: Drive, recovery: Recovery) -> None:
    for _ in range(3):
        await drive.eventually("all five databases are in use", lambda: cut_connections(drive))
    await recovery("all database connections cut, three times", time.monotonic())


async def test_stalled_services_evicted_by_kafka_count_nothing_twice(
    drive: Drive, recovery: Recovery
) -> None:
    stalled = ("leaderboard", "payments")
    for service in stalled:
        drive.send_signal(service, signal.SIGSTOP)
    try:
        async with admin_of(drive) as admin:
            for group in stalled:
                await drive.eventually(f"{group} has lost its member", partial(has_no_members, admin, group))
    finally:
        for service in stalled:
            drive.send_signal(service, signal.SIGCONT)
    await recovery("leaderboard and payments stalled past their sessions", time.monotonic())


async def test_producer_recovers_after_a_refused_message(drive: Drive, recovery: Recovery) -> None:
    producers = ("pledges", "payments", "leaderboard")
    offsets = {name: drive.log_bytes(name) for name in producers}
    async with admin_of(drive) as admin:
        await set_max_message_bytes(admin, "1")
        try:
            for name, offset in offsets.items():
                discarded = partial(drive.logged_since, name, offset, "bus.producer_discarded")
                await drive.eventually(f"a message of {name} is refused", discarded)
        finally:
            await set_max_message_bytes(admin, None)
    await recovery("every message refused by the broker", time.monotonic())


async def test_all_books_agree_to_the_cent(drive: Drive) -> None:
    await drive.close()
    proof = await drive.settle()
    assert proof.holds, proof
    assert not any(proof.difference.values())
    tally = drive.donors.tally
    assert proof.given == proof.counted == tally.started
    assert tally.refunds and tally.disputes


async def test_every_donor_has_a_receipt(drive: Drive) -> None:
    paid = len(drive.donors.tally.paid)
    await drive.eventually(f"{paid} receipts are written", lambda: drive.receipts() >= paid)
    assert drive.receipts() == paid


@pytest.mark.parametrize("observer", ["poll", "stream"])
async def test_sequences_never_decrease(drive: Drive, observer: str) -> None:
    seen = drive.observers()[observer]
    assert len(seen) > 20
    back = [
        (one, other)
        for one, other in pairwise(seen)
        if (other.epoch, other.sequence) < (one.epoch, one.sequence)
    ]
    assert not back


async def test_stream_showed_each_donation_once_and_in_order(drive: Drive) -> None:
    shown = drive.overlay.donations
    assert shown == sorted(set(shown))
    assert set(drive.freshness.counted.values()) >= set(shown)


async def test_live_figures_were_never_stale(drive: Drive) -> None:
    live = [one for one in drive.poller.observations if one.state == "live"]
    assert max(one.asked_at - one.as_of for one in live) <= LIVE_WITHIN_S
    assert len(drive.freshness.acknowledged) > 20
    assert not list(drive.false_claims())


async def cut_connections(drive: Drive) -> bool:
    """Terminate every database connection, once all five databases have some."""
    connection = await asyncpg.connect(drive.postgres_url(), timeout=10)
    try:
        used = await connection.fetchval(f"SELECT count(DISTINCT datname) {_CONNECTED}")
        if used == len(SERVICES):
            await connection.fetch(f"SELECT pg_terminate_backend(pid) {_CONNECTED}")
        return bool(used == len(SERVICES))
    finally:
        await connection.close()


_CONNECTED = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


@asynccontextmanager
async def admin_of(drive: Drive) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{drive.setting('ports', 'kafka')}")
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def has_no_members(admin: AIOKafkaAdminClient, group: str) -> bool:
    """Whether the consumer group has no member."""
    (found,) = await admin.describe_consumer_groups([group])
    _, _, state, _, _, members, *_ = found.groups[0]
    return state == "Empty" and not members


async def set_max_message_bytes(admin: AIOKafkaAdminClient, limit: str | None) -> None:
    """Set the topics' `max.message.bytes`; None restores topics.toml's settings."""
    more = {"max.message.bytes": limit} if limit else {}
    changes = [
        ConfigResource(ConfigResourceType.TOPIC, topic.name, configs={**topic.config, **more})
        for topic in read_topics()
    ]
    for reply in await admin.alter_configs(changes):
        assert not any(code for code, *_ in reply.resources), reply
