"""Two replicas of every service share the work; donations count once, also when one is killed or stalled."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.stack.replicated_stack import (
    GROUPS,
    LEADERS,
    SESSION_S,
    ReplicatedStack,
    Watcher,
    replicated_stack,
)
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOPICS = {"pledges": 12, "payments": 12, "leaderboard": 24, "notify": 12}
"""The number of partitions that each group consumes."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReplicatedStack]:
    """Two replicas of each service; the first one holds every leader lock."""
    async with replicated_stack(tmp_path_factory.mktemp("replicas")) as found:
        await found.start(0)
        await until(lambda: all_led(found), 120)
        await found.start(1)
        await until(lambda: both_share(found), 120)
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def drives(system: ReplicatedStack) -> list[str]:
    return await system.open_drives(4)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watchers(system: ReplicatedStack, drives: list[str]) -> AsyncIterator[list[Watcher]]:
    """Pollers of each drive's totals at each gateway."""
    found = [Watcher(system, index, slug) for slug in drives for index in (0, 1)]
    tasks = [asyncio.create_task(one.run()) for one in found]
    yield found
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_led(system: ReplicatedStack) -> bool:
    leaders = [
        await system.leader_count(service, work) for service, works in LEADERS.items() for work in works
    ]
    assert max(leaders) <= 1, "two leaders for one task"
    return min(leaders) == 1


async def both_share(system: ReplicatedStack) -> bool:
    return all([await system.partitions(group) == [count // 2] * 2 for group, count in TOPICS.items()])


async def one_has_all(system: ReplicatedStack) -> bool:
    return all([await system.partitions(group) == [count] for group, count in TOPICS.items()])


async def settled(system: ReplicatedStack, drives: list[str], watchers: list[Watcher]) -> None:
    """Assert that every donation is counted once everywhere, and that no totals decreased."""
    try:
        await until(lambda: nothing_left(system), 120)
    except TimeoutError:
        raise AssertionError(await system.unsettled()) from None
    assert set(Counter(await system.sessions()).values()) == {1}
    assert len(await system.sessions()) == len(system.donors)
    for index in (0, 1):
        await until(lambda index=index: shown(system, index, drives), 60)  # type: ignore[misc]
    assert (await system.get_internal(system.replicas["leaderboard"][1], "/internal/differences"))[
        "data"
    ] == []
    await until(lambda: {to for to, _ in system.mailbox.receipts} == set(system.donors), 60)
    assert len(set(system.mailbox.receipts)) == len(system.donors)
    assert [one.decreased for one in watchers if one.decreased] == []
    assert all(one.looks for one in watchers)


async def nothing_left(system: ReplicatedStack) -> bool:
    return not await system.unsettled()


async def shown(system: ReplicatedStack, index: int, drives: list[str]) -> bool:
    totals = [await system.totals(index, slug) for slug in drives]
    return sum(one["donations"] for one in totals) == len(system.donors) and all(
        one["state"] == "live" for one in totals
    )


async def donate_everywhere(system: ReplicatedStack, drives: list[str], count: int) -> None:
    await asyncio.gather(
        *(system.donate(drives[n % len(drives)], n // len(drives) % 2) for n in range(count))
    )


async def test_both_replicas_work_and_everything_is_done_once(
    system: ReplicatedStack, drives: list[str], watchers: list[Watcher]
) -> None:
    await donate_everywhere(system, drives, 32)
    await settled(system, drives, watchers)
    assert len(system.mailbox.receipts) == len(system.donors)
    for slug in drives:  # from any replica, whether or not it consumes the drive's partition
        for index in (0, 1, 0, 1):
            assert (await system.board(index, slug))["as_of"]
    assert await both_share(system)
    assert await all_led(system)


async def test_replicas_take_over_from_killed_ones(
    system: ReplicatedStack, drives: list[str], watchers: list[Watcher], capsys: pytest.CaptureFixture[str]
) -> None:
    donating = asyncio.create_task(keep_donating(system, drives, 24))
    await until(lambda: len(system.donors) >= 38, 120)
    system.send(0, signal.SIGKILL)
    killed = time.monotonic()
    took = {
        "every leader lock held again": measured(all_led, system, killed),
        "all partitions consumed by the others": measured(one_has_all, system, killed),
        "a donation pledged, paid and counted": measured(donation_is_counted, system, killed),
    }
    for what, seconds in zip(took, await asyncio.gather(*took.values()), strict=True):
        report(capsys, f"one of each service killed: {what} after {seconds:.1f} s (session {SESSION_S} s)")
    await donating
    await system.start(0)
    await until(lambda: both_share(system), 120)
    await settled(system, drives, watchers)
    assert await all_led(system)


async def test_replicas_take_over_from_stalled_ones(
    system: ReplicatedStack, drives: list[str], watchers: list[Watcher], capsys: pytest.CaptureFixture[str]
) -> None:
    """The stalled replicas hold leader locks and partitions until their sessions expire."""
    donating = asyncio.create_task(keep_donating(system, drives, 16))
    before = len(system.donors)
    await until(lambda: len(system.donors) >= before + 4, 120)
    system.send(1, signal.SIGSTOP, GROUPS)
    stalled = time.monotonic()
    try:
        seconds = await measured(donation_is_counted, system, stalled)
        report(
            capsys, f"one of each service stalled: a donation pledged, paid and counted after {seconds:.1f} s"
        )
        await donating
    finally:
        system.send(1, signal.SIGCONT, GROUPS)
    resumed = time.monotonic()
    await until(lambda: both_share(system), 120)
    await settled(system, drives, watchers)
    report(capsys, f"the stalled replicas resumed: all agree after {time.monotonic() - resumed:.1f} s")
    assert await all_led(system)


async def keep_donating(system: ReplicatedStack, drives: list[str], count: int) -> None:
    """Make donations, two at a time, through the load balancer."""

    async def each(first: int) -> None:
        for n in range(first, count, 2):
            await system.donate(drives[n % 3])

    await asyncio.gather(each(0), each(1))


async def measured(
    done: Callable[[ReplicatedStack], Awaitable[Any]], system: ReplicatedStack, since: float
) -> float:
    """Seconds from `since` until `done`."""
    await until(lambda: done(system), 90)
    return time.monotonic() - since


async def donation_is_counted(system: ReplicatedStack) -> bool:
    """Make a donation on an otherwise idle drive, and wait until the running gateway shows it."""
    before = (await system.totals(1, "drive-3"))["donations"]
    await system.donate("drive-3")

    async def more() -> bool:
        return bool((await system.totals(1, "drive-3"))["donations"] > before)

    await until(more, 90)
    return True


def report(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n[recovery] {line}")  # noqa: T201
