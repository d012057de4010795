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

from tests.stack.pairs import ALONE, GROUPS, SESSION_S, Pairs, Watcher, pairs
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOPICS = {"pledges": 12, "payments": 12, "leaderboard": 24, "notify": 12}
"""Partitions that each group reads."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pairs]:
    """Two of each at work; the first owns what only one does. Four drives, on four partitions."""
    async with pairs(tmp_path_factory.mktemp("pairs")) as found:
        await found.start(0)
        await until(lambda: all_owned(found), 120)
        await found.start(1)
        await until(lambda: both_share(found), 120)
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def drives(town: Pairs) -> list[str]:
    return await town.open_drives(4)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watchers(town: Pairs, drives: list[str]) -> AsyncIterator[list[Watcher]]:
    """Somebody who looks at each drive at each gateway, all the time."""
    found = [Watcher(town, place, slug) for slug in drives for place in (0, 1)]
    tasks = [asyncio.create_task(one.run()) for one in found]
    yield found
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def all_owned(town: Pairs) -> bool:
    owners = [await town.owners(service, work) for service, works in ALONE.items() for work in works]
    assert max(owners) <= 1, "two do what one may do"
    return min(owners) == 1


async def both_share(town: Pairs) -> bool:
    return all([await town.partitions(group) == [count // 2] * 2 for group, count in TOPICS.items()])


async def one_has_all(town: Pairs) -> bool:
    return all([await town.partitions(group) == [count] for group, count in TOPICS.items()])


async def settled(town: Pairs, drives: list[str], watchers: list[Watcher]) -> None:
    """Every gift is counted once, everywhere, and nothing went back anywhere."""
    try:
        await until(lambda: nothing_left(town), 120)
    except TimeoutError:
        raise AssertionError(await town.unsettled()) from None
    assert set(Counter(await town.sessions()).values()) == {1}
    assert len(await town.sessions()) == len(town.donors)
    for place in (0, 1):
        await until(lambda place=place: shown(town, place, drives), 60)  # type: ignore[misc]
    assert (await town.ask(town.replicas["leaderboard"][1], "/internal/differences"))["data"] == []
    await until(lambda: {to for to, _ in town.mailbox.letters} == set(town.donors), 60)
    assert len(set(town.mailbox.letters)) == len(town.donors)
    assert [one.went_back for one in watchers if one.went_back] == []
    assert all(one.looks for one in watchers)


async def nothing_left(town: Pairs) -> bool:
    return not await town.unsettled()


async def shown(town: Pairs, place: int, drives: list[str]) -> bool:
    totals = [await town.totals(place, slug) for slug in drives]
    return sum(one["donations"] for one in totals) == len(town.donors) and all(
        one["state"] == "live" for one in totals
    )


async def give_everywhere(town: Pairs, drives: list[str], count: int) -> None:
    await asyncio.gather(*(town.give(drives[n % len(drives)], n // len(drives) % 2) for n in range(count)))


async def test_both_work_and_everything_is_done_once(
    town: Pairs, drives: list[str], watchers: list[Watcher]
) -> None:
    await give_everywhere(town, drives, 32)
    await settled(town, drives, watchers)
    assert len(town.mailbox.letters) == len(town.donors)
    for slug in drives:  # whichever replica is asked, and whether or not it reads the drive's partition
        for place in (0, 1, 0, 1):
            assert (await town.board(place, slug))["as_of"]
    assert await both_share(town)
    assert await all_owned(town)


async def test_the_others_take_over_from_one_of_each_that_is_killed(
    town: Pairs, drives: list[str], watchers: list[Watcher], capsys: pytest.CaptureFixture[str]
) -> None:
    giving = asyncio.create_task(give_on(town, drives, 24))
    await until(lambda: len(town.donors) >= 38, 120)
    town.send(0, signal.SIGKILL)
    killed = time.monotonic()
    took = {
        "all that one does alone owned again": measured(all_owned, town, killed),
        "all partitions read by the other": measured(one_has_all, town, killed),
        "a gift opened, paid and counted": measured(a_gift_is_counted, town, killed),
    }
    for what, seconds in zip(took, await asyncio.gather(*took.values()), strict=True):
        tell(capsys, f"one of each service killed: {what} after {seconds:.1f} s (session {SESSION_S} s)")
    await giving
    await town.start(0)
    await until(lambda: both_share(town), 120)
    await settled(town, drives, watchers)
    assert await all_owned(town)


async def test_the_others_take_over_from_one_of_each_that_sleeps(
    town: Pairs, drives: list[str], watchers: list[Watcher], capsys: pytest.CaptureFixture[str]
) -> None:
    """The sleepers own what one does alone, and hold locks and partitions until they are missed."""
    giving = asyncio.create_task(give_on(town, drives, 16))
    before = len(town.donors)
    await until(lambda: len(town.donors) >= before + 4, 120)
    town.send(1, signal.SIGSTOP, GROUPS)
    slept = time.monotonic()
    try:
        seconds = await measured(a_gift_is_counted, town, slept)
        tell(capsys, f"one of each service asleep: a gift opened, paid and counted after {seconds:.1f} s")
        await giving
    finally:
        town.send(1, signal.SIGCONT, GROUPS)
    woke = time.monotonic()
    await until(lambda: both_share(town), 120)
    await settled(town, drives, watchers)
    tell(capsys, f"the sleepers woke: all agree after {time.monotonic() - woke:.1f} s")
    assert await all_owned(town)


async def give_on(town: Pairs, drives: list[str], count: int) -> None:
    """Gifts two at a time, through whichever gateway answers."""

    async def each(first: int) -> None:
        for n in range(first, count, 2):
            await town.give(drives[n % 3])

    await asyncio.gather(each(0), each(1))


async def measured(done: Callable[[Pairs], Awaitable[Any]], town: Pairs, since: float) -> float:
    """Seconds from `since` until `done`."""
    await until(lambda: done(town), 90)
    return time.monotonic() - since


async def a_gift_is_counted(town: Pairs) -> bool:
    """One more gift, on a drive that has no other just now, until the gateway that lives shows it."""
    before = (await town.totals(1, "drive-3"))["donations"]
    await town.give("drive-3")

    async def more() -> bool:
        return bool((await town.totals(1, "drive-3"))["donations"] > before)

    await until(more, 90)
    return True


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n[recovery] {line}")  # noqa: T201
