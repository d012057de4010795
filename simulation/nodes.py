"""A service as a process of its own: it runs its workers, answers requests, crashes and is restarted.

Every task belongs to the incarnation in which it was created (`CURRENT`). A crash cancels the tasks of the
incarnation, and from then on none of its operations reaches the bus, the store or the network: what a real
process would not have done after SIGKILL does not happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, Protocol

from backbone.service import STOP_S, Service, keep_running
from simulation.faults import CRASHES, Fault, FaultPlan
from simulation.trace import Trace
from simulation.virtual_time import NumberedTask

CURRENT: ContextVar[Incarnation | None] = ContextVar("incarnation", default=None)

RESTART_S: Final = (0.05, 0.8)
"""The shortest and the longest time between a crash and the restart."""

LOOK_S: Final = 0.02
"""How often a stop looks whether the process has finished its work."""


class OpenConnection(Protocol):
    """A connection that a client holds to a process."""

    def reset(self) -> None:
        """The process has ended."""
        ...


class Incarnation:
    """A node from one start to its end."""

    def __init__(self, node: Node, service: Service) -> None:
        self.node = node
        self.service = service
        self.dead = False
        self.ready = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.connections: dict[OpenConnection, None] = {}
        self.stop = asyncio.Event()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Note a task that was created in this incarnation."""
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` in this incarnation, whoever calls."""
        return self.context().run(asyncio.get_running_loop().create_task, work)

    def context(self) -> Context:
        """A context in which this incarnation is the one that calls."""
        context = copy_context()
        context.run(CURRENT.set, self)
        return context

    def kill(self) -> None:
        """End it as SIGKILL would."""
        self.dead = True
        self.ready = False
        for task in list(self.tasks):
            task.cancel()
        for connection in list(self.connections):
            connection.reset()


class Node:
    """One service that may crash or be stopped; `compose` makes its next incarnation."""

    def __init__(self, name: str, compose: Callable[[], Service], operations: Operations) -> None:
        self.name = name
        self.incarnation: Incarnation | None = None
        self.crashes = 0
        self.ends = 0
        """Its processes that have ended, by a crash or a stop: the number of the present one."""
        self._compose = compose
        self._plan = operations.plan
        self._trace = operations.trace
        self._outside = operations.outside

    @property
    def ready(self) -> bool:
        """Whether it accepts requests."""
        return self.incarnation is not None and self.incarnation.ready

    async def start(self) -> None:
        """Start it, again and again while its start fails."""
        while True:
            incarnation = self.incarnation = Incarnation(self, self._compose())
            opening = incarnation.spawn(self._open(incarnation))
            await asyncio.wait([opening])  # a crash cancels it, and must not cancel this loop
            if not opening.cancelled() and opening.result():
                return
            await asyncio.sleep(0.1)

    async def _open(self, incarnation: Incarnation) -> bool:
        try:
            await incarnation.service.start()
        except asyncio.CancelledError:
            return False
        except Exception as error:
            self._trace.note(f"{self.name} start failed: {type(error).__name__}")
            return False
        if incarnation.dead:
            return False
        for worker in incarnation.service.workers:
            if worker.name.endswith(".pruning"):
                continue  # nothing grows old in a run
            incarnation.spawn(keep_running(worker, incarnation.stop))
        incarnation.ready = True
        self._trace.note(f"{self.name} started")
        return True

    async def wait_until_ready(self) -> None:
        """Wait until it accepts requests."""
        while not self.ready:  # noqa: ASYNC110 - each incarnation would have an event of its own
            await asyncio.sleep(0.05)

    def crash(self) -> None:
        """Kill it now; it is restarted after a while."""
        incarnation = self.incarnation
        if incarnation is None or incarnation.dead:
            return
        self.crashes += 1
        self.ends += 1
        self._trace.note(f"{self.name} crashed")
        was_ready = incarnation.ready
        incarnation.kill()
        if was_ready:
            self._outside(self._restart(self._plan.random.uniform(*RESTART_S)))

    async def _restart(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if self.incarnation is None or self.incarnation.dead:
            await self.start()

    async def stop_and_start(self, after_s: float) -> None:
        """Stop it as SIGTERM does, if it is ready, and start it `after_s` later. It may crash meanwhile."""
        incarnation = self.incarnation
        if incarnation is None or not incarnation.ready:
            return
        self._trace.note(f"{self.name} drains")
        incarnation.ready = False
        incarnation.service.drain.set()
        await _until(lambda: not incarnation.connections)
        incarnation.stop.set()
        await _until(lambda: not incarnation.tasks)
        if not incarnation.dead:
            self.ends += 1
            incarnation.kill()
            self._trace.note(f"{self.name} stopped")
        await self._restart(after_s)  # a crash of what is not ready restarts nothing


async def _until(ended: Callable[[], bool]) -> None:
    """Wait until something has ended, at most for as long as a stop waits for it."""
    for _ in range(round(STOP_S / LOOK_S)):
        if ended():
            return
        await asyncio.sleep(LOOK_S)


class Operations:
    """Performs operations with the faults of the plan. One object is shared by all nodes."""

    def __init__(self, plan: FaultPlan, trace: Trace) -> None:
        self.plan = plan
        self.trace = trace
        self._outside: dict[asyncio.Task[None], None] = {}

    def outside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in no incarnation: a crash of the caller does not end it."""
        context = copy_context()
        context.run(CURRENT.set, None)
        task = context.run(asyncio.get_running_loop().create_task, work)
        self._outside[task] = None
        task.add_done_callback(lambda done: self._outside.pop(done, None))

    async def begin(
        self, name: str, possible: Collection[Fault], detail: str = "", *, traced: bool = True
    ) -> Fault | None:
        """Draw the fault of an operation, and carry out what comes before it.

        Never returns in an incarnation that is dead: raises CancelledError. An operation that is not `traced`
        has a line in the trace only where it has a fault.
        """
        caller = alive()
        fault = None
        if self.plan.happens(name):
            fault = self.plan.draw(name, possible, "outside" if caller is None else caller.node.name)
        if traced or fault is not None:
            who = "outside" if caller is None else caller.node.name
            self.trace.note(f"{who} {name}{detail}{f' [{fault}]' if fault else ''}")
        return None if fault is None else await self._carry_out(fault, caller)

    async def _carry_out(self, fault: Fault, caller: Incarnation | None) -> Fault | None:
        if fault in CRASHES and caller is None:
            return None
        if fault is Fault.CRASH_BEFORE and caller is not None:
            caller.node.crash()
            raise asyncio.CancelledError
        if fault is Fault.DELAY:
            await asyncio.sleep(self.plan.delay_s())
            alive()
        return fault

    def end(self, fault: Fault | None) -> None:
        """Carry out what comes after an operation that happened. Raises CancelledError at a crash."""
        caller = alive()
        if fault is Fault.CRASH_AFTER and caller is not None:
            caller.node.crash()
            raise asyncio.CancelledError

    async def call(
        self,
        name: str,
        act: Callable[[], Awaitable[Any]],
        failure: Callable[[str], Exception],
        possible: Collection[Fault],
        *,
        timeout_s: float = 1.0,
        detail: str = "",
    ) -> Any:
        """`act` as one operation that may fail: `failure` makes the error that its caller gets."""
        fault = await self.begin(name, possible, detail)
        if fault is Fault.ERROR:
            raise failure("simulated: it did not happen")
        result = await act()
        self.end(fault)
        if fault is Fault.LOST_ACK:
            raise failure("simulated: the acknowledgement was lost")
        if fault is Fault.TIMEOUT:
            await asyncio.sleep(timeout_s)
            alive()
            raise failure("simulated: it timed out")
        return result


def alive() -> Incarnation | None:
    """The incarnation that calls; None outside of all. Raises CancelledError in one that is dead."""
    caller = CURRENT.get()
    if caller is not None and caller.dead:
        raise asyncio.CancelledError
    return caller


def create_task(loop: Any, coroutine: Any, **options: Any) -> NumberedTask:
    """The loop's task factory: a task belongs to the incarnation that creates it."""
    task = NumberedTask(coroutine, loop=loop, **options)
    incarnation = CURRENT.get()
    if incarnation is not None:
        incarnation.adopt(task)
    return task
