"""What a crash and a stop of a simulated process end, and the faults of its operations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from backbone.service import Service, Worker
from simulation.faults import Fault, FaultPlan
from simulation.nodes import Node, Operations, create_task
from simulation.trace import Trace
from simulation.virtual_time import repeatable, run


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    return


class _Scripted(FaultPlan):
    """Draws these faults, one an operation, and then none."""

    def __init__(self, *faults: Fault | None) -> None:
        super().__init__(1)
        self._faults = list(faults)
        self.active = True

    def happens(self, operation: str) -> bool:
        return bool(self._faults) and (self._faults[0] is not None or bool(self._faults.pop(0)))

    def draw(self, operation: str, possible: Any, caller: str) -> Fault | None:
        return self._faults.pop(0)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    with repeatable(1) as loop:
        loop.set_task_factory(create_task)
        return run(loop, work)


def _node(work: Callable[[Operations], Awaitable[None]], *faults: Fault | None) -> Node:
    operations = Operations(_Scripted(*faults), Trace())

    def compose() -> Service:
        return Service("one", _no_app, [Worker("one.work", lambda stop: work(operations))])

    return Node("one", compose, operations)


async def _store(stored: list[str], what: str) -> None:
    stored.append(what)


@pytest.mark.parametrize(
    ("fault", "happened"),
    [(Fault.CRASH_BEFORE, ["after the restart"]), (Fault.CRASH_AFTER, ["first", "after the restart"])],
)
def test_a_crashed_process_does_nothing_more_and_is_restarted(fault: Fault, happened: list[str]) -> None:
    stored: list[str] = []
    starts: list[int] = []

    async def work(operations: Operations) -> None:
        starts.append(1)
        what = "first" if len(starts) == 1 else "after the restart"
        try:
            await operations.call("store", lambda: _store(stored, what), RuntimeError, set(Fault))
        finally:  # careless: goes on although it was cancelled
            if len(starts) == 1:
                await operations.call("store", lambda: _store(stored, "a ghost"), RuntimeError, set(Fault))
        await asyncio.sleep(1000)

    async def main() -> None:
        node = _node(work, fault)
        await node.start()
        await asyncio.sleep(10)
        assert node.crashes == 1
        assert node.ready
        assert node.incarnation is not None
        node.incarnation.kill()
        await asyncio.sleep(0.1)

    _run(main())
    assert stored == happened
    assert len(starts) == 2


def test_a_process_that_crashes_while_it_starts_is_started_again() -> None:
    starts: list[int] = []

    async def main() -> None:
        operations = Operations(_Scripted(Fault.CRASH_BEFORE), Trace())

        async def start() -> None:
            starts.append(1)
            await operations.call("read", lambda: _store([], "read"), RuntimeError, set(Fault))

        node = Node("one", lambda: Service("one", _no_app, start=start), operations)
        await node.start()
        assert (node.ready, node.crashes) == (True, 1)

    _run(main())
    assert len(starts) == 2


class _Streaming:
    """A service whose connection and whose worker end in their time once a stop begins."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.node = _node(lambda operations: asyncio.sleep(0))
        self.node._compose = self._compose

    def _compose(self) -> Service:
        service = Service("one", _no_app)

        async def end_connections(stop: asyncio.Event) -> None:
            self.happened.append("start")
            await service.drain.wait()
            await asyncio.sleep(1)
            self.happened.append("last connection ends" + " late" * stop.is_set())
            assert self.node.incarnation is not None
            self.node.incarnation.connections.clear()
            await stop.wait()
            await asyncio.sleep(1)
            self.happened.append("worker ends")

        service.workers = [Worker("one.work", end_connections)]
        return service

    async def start(self) -> None:
        await self.node.start()
        assert self.node.incarnation is not None
        self.node.incarnation.connections[self] = None
        await asyncio.sleep(0.1)

    async def end(self) -> None:
        assert self.node.incarnation is not None
        self.node.incarnation.kill()
        await asyncio.sleep(0.1)

    def reset(self) -> None:
        self.happened.append("connection is reset")


def test_a_stop_waits_for_connections_and_workers_and_another_process_is_started() -> None:
    one: list[_Streaming] = []

    async def main() -> None:
        one.append(_Streaming())
        await one[0].start()
        stopping = asyncio.create_task(one[0].node.stop_and_start(0.5))
        await asyncio.sleep(0.5)
        assert not one[0].node.ready
        await stopping
        await asyncio.sleep(0.1)
        assert (one[0].node.ready, one[0].node.ends, one[0].node.crashes) == (True, 1, 0)
        await one[0].end()

    _run(main())
    assert one[0].happened == ["start", "last connection ends", "worker ends", "start"]


def test_a_process_that_crashes_while_it_is_stopped_resets_its_connections_and_is_started_again() -> None:
    one: list[_Streaming] = []

    async def main() -> None:
        one.append(_Streaming())
        await one[0].start()
        stopping = asyncio.create_task(one[0].node.stop_and_start(0.5))
        await asyncio.sleep(0.5)
        one[0].node.crash()
        await stopping
        await asyncio.sleep(0.1)
        assert (one[0].node.ready, one[0].node.ends, one[0].node.crashes) == (True, 1, 1)
        await one[0].end()

    _run(main())
    assert one[0].happened == ["start", "connection is reset", "start"]


@pytest.mark.parametrize(
    ("fault", "happened", "raised"),
    [
        (None, ["it"], False),
        (Fault.DELAY, ["it"], False),
        (Fault.ERROR, [], True),
        (Fault.LOST_ACK, ["it"], True),
        (Fault.TIMEOUT, ["it"], True),
    ],
)
def test_a_fault_decides_whether_it_happened_and_what_the_caller_learns(
    fault: Fault | None, happened: list[str], raised: bool
) -> None:
    stored: list[str] = []
    errors: list[str] = []

    async def main() -> None:
        operations = Operations(_Scripted(fault), Trace())
        try:
            await operations.call("store", lambda: _store(stored, "it"), ConnectionError, set(Fault))
        except ConnectionError as error:
            errors.append(str(error))

    _run(main())
    assert stored == happened
    assert bool(errors) is raised
