"""Two replicas of every service share the work; it is counted once, and goes on when one dies or sleeps."""

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
"""Partitions that each group reads."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReplicatedStack]:
    """Two of each at work; the first owns what only one does. Four drives, on four partitions."""
    async with replicated_stack(tmp_path_factory.mktemp("pairs")) as found:
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
    """Somebody who looks at each drive at each gateway, all the time."""
    found = [Watcher(system, index, slug) for slug in drives for index in (0, 1)]
    tasks = [asyncio.create_task(one.run()) for one in found]
    yield found
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_led(system: ReplicatedStack) -> bool:
    leader_count = [
        await system.leader_count(service, work) for service, works in LEADERS.items() for work in works
    ]
    assert max(leader_count) <= 1, "two do what one may do"
    return min(leader_count) == 1


async def both_share(system: ReplicatedStack) -> bool:
    return all([await system.partitions(group) == [count // 2] * 2 for group, count in TOPICS.items()])


async def one_has_all(system: ReplicatedStack) -> bool:
    return all([await system.partitions(group) == [count] for group, count in TOPICS.items()])


async def settled(system: ReplicatedStack, drives: list[str], watchers: list[Watcher]) -> None:
    """Every gift is counted once, everywhere, and nothing went back anywhere."""
    try:
        await until(lambda: nothing_left(system), 120)
    except TimeoutError:
        raise AssertionError(await system.unsettled()) from None
    assert set(Counter(await system.sessions()).values()) == {1}
    assert len(await system.sessions()) == len(system.donors)
    for index in (0, 1):
        await until(lambda index=index: shown(system, index, drives), 60)  # type: ignore[misc]
    assert (await system.ask(system.replicas["leaderboard"][1], "/internal/differences"))["data"] == []
    await until(lambda: {to for to, _ in system.mailbox.letters} == set(system.donors), 60)
    assert len(set(system.mailbox.letters)) == len(system.donors)
    assert [one.went_back for one in watchers if one.went_back] == []
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
    assert len(system.mailbox.letters) == len(system.donors)
    for slug in drives:  # whichever replica is asked, and whether or not it reads the drive's partition
        for index in (0, 1, 0, 1):
            assert (await system.board(index, slug))["as_of"]
    assert await both_share(system)
    assert await all_led(system)


async def test_replicas_take_over_from_killed_ones(
    system: ReplicatedStack, drives: list[str], watchers: list[Watcher], capsys: pytest.CaptureFixture[str]
) -> None:
    giving = asyncio.create_task(keep_donating(system, drives, 24))
    await until(lambda: len(system.donors) >= 38, 120)
    system.send(0, signal.SIGKILL)
    killed = time.monotonic()
    took = {
        "all that one does alone owned again": measured(all_led, system, killed),
        "all partitions read by the other": measured(one_has_all, system, killed),
        "a gift opened, paid and counted": measured(a_gift_is_counted, system, killed),
    }
    for what, seconds in zip(took, await asyncio.gather(*took.values()), strict=True):
        tell(capsys, f"one of each service killed: {what} after {seconds:.1f} s (session {SESSION_S} s)")
    await giving
    await system.start(0)
    await until(lambda: both_share(system), 120)
    await settled(system, drives, watchers)
    assert await all_led(system)


async def test_replicas_take_over_from_stalled_ones(
    system: ReplicatedStack, drives: list[str], watchers: list[Watcher], capsys: pytest.CaptureFixture[str]
) -> None:
    """The sleepers own what one does alone, and hold locks and partitions until they are missed."""
    giving = asyncio.create_task(keep_donating(system, drives, 16))
    before = len(system.donors)
    await until(lambda: len(system.donors) >= before + 4, 120)
    system.send(1, signal.SIGSTOP, GROUPS)
    slept = time.monotonic()
    try:
        seconds = await measured(a_gift_is_counted, system, slept)
        tell(capsys, f"one of each service asleep: a gift opened, paid and counted after {seconds:.1f} s")
        await giving
    finally:
        system.send(1, signal.SIGCONT, GROUPS)
    woke = time.monotonic()
    await until(lambda: both_share(system), 120)
    await settled(system, drives, watchers)
    tell(capsys, f"the sleepers woke: all agree after {time.monotonic() - woke:.1f} s")
    assert await all_led(system)


async def keep_donating(system: ReplicatedStack, drives: list[str], count: int) -> None:
    """Gifts two at a time, through whichever gateway answers."""

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


async def a_gift_is_counted(system: ReplicatedStack) -> bool:
    """One more gift, on a drive that has no other just now, until the gateway that lives shows it."""
    before = (await system.totals(1, "drive-3"))["donations"]
    await system.donate("drive-3")

    async def more() -> bool:
        return bool((await system.totals(1, "drive-3"))["donations"] > before)

    await until(more, 90)
    return True


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n[recovery] {line}")  # noqa: T201
