"""Group commit: concurrent requests share a transaction, but not each other's failures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy.exc import IntegrityError

from backbone.group_commit import GroupCommit
from backbone.http.problems import Overloaded


class Ledger:
    """Commits batches of words; fails a whole batch that contains `bad`, as a database would."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, words: Sequence[str]) -> list[str | Exception]:
        await self.gate.wait()
        if "bad" in words:
            raise IntegrityError("insert", {}, Exception("refused"))
        self.batches.append(list(words))
        return [KeyError(word) if word == "unknown" else word.upper() for word in words]


async def test_concurrent_requests_share_a_commit_and_get_their_own_results() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.commit)
    answers = await asyncio.gather(*(group.submit(f"w{n}") for n in range(40)))
    assert answers == [f"W{n}" for n in range(40)]
    assert len(ledger.batches) == 1


async def test_request_with_a_permanent_error_fails_alone() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.commit)
    words = [f"w{n}" for n in range(25)] + ["bad"] + [f"x{n}" for n in range(24)]
    answers = await asyncio.gather(*(group.submit(word) for word in words), return_exceptions=True)
    assert isinstance(answers[25], IntegrityError)
    assert [a for a in answers if isinstance(a, str)] == [w.upper() for w in words if w != "bad"]
    assert sorted(word for batch in ledger.batches for word in batch) == sorted(
        w for w in words if w != "bad"
    )


async def test_exception_result_is_raised_for_its_request_only() -> None:
    group = GroupCommit(Ledger().commit)
    answers = await asyncio.gather(group.submit("a"), group.submit("unknown"), return_exceptions=True)
    assert answers[0] == "A"
    assert isinstance(answers[1], KeyError)


async def test_cancelled_caller_does_not_cancel_the_batch() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    group = GroupCommit(ledger.commit)
    leaving = asyncio.create_task(group.submit("left"))
    staying = asyncio.create_task(group.submit("stayed"))
    await asyncio.sleep(0)
    leaving.cancel()
    ledger.gate.set()
    assert await staying == "STAYED"
    assert ledger.batches == [["left", "stayed"]]


async def test_full_queue_is_overloaded_with_retry_after() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    group = GroupCommit(ledger.commit, max_batch=1, max_queue=3)
    waiting = [asyncio.create_task(group.submit(f"w{n}")) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await group.submit("too many")
    assert caught.value.headers["Retry-After"] == "1"
    ledger.gate.set()
    assert len(await asyncio.gather(*waiting)) == 3


async def test_batches_are_bounded() -> None:
    ledger = Ledger()
    group = GroupCommit(ledger.commit, max_batch=8)
    await asyncio.gather(*(group.submit(f"w{n}") for n in range(50)))
    assert max(map(len, ledger.batches)) == 8
