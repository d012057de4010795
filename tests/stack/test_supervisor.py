"""The stack's supervisor: restarts with backoff, abandons after too many crashes, respects the lock."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack import processes
from stack.exclusive_lock import Busy, exclusive_lock
from stack.layout import write_json
from stack.process_specs import ProcessSpec
from stack.supervisor import CRASH_WINDOW_S, CRASHES_ALLOWED, Supervisor, pause_s, read_supervisor_state
from tests.waiting import until

RUNS = (sys.executable, "-c", "import time; time.sleep(600)")
CRASHES = (sys.executable, "-c", "print('no disk left')")

Supervise = Callable[..., Supervisor]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Creates a supervisor of processes by name and command, which are started unless `up` is false."""
    names: list[str] = []

    def create(up: bool = True, **commands: tuple[str, ...]) -> Supervisor:
        names.extend(commands)
        specs = [ProcessSpec(name, command, dict(os.environ), "") for name, command in commands.items()]
        for spec in specs if up else ():
            processes.start(spec, tmp_path / "run", tmp_path / f"{spec.name}.log")
        return Supervisor(specs, tmp_path, lambda name: tmp_path / f"{name}.log")

    yield create
    for name in names:
        processes.stop(name, tmp_path / "run", signal.SIGKILL)


def pid_of(name: str, directory: Path) -> int | None:
    return processes.find(name, directory / "run").pid


async def test_killed_process_is_restarted_at_once_and_counted(supervise: Supervise, tmp_path: Path) -> None:
    supervisor = supervise(kafka=RUNS, payments=RUNS)
    other, first = pid_of("kafka", tmp_path), pid_of("payments", tmp_path)
    assert other and first
    os.kill(first, signal.SIGKILL)
    await until(lambda: pid_of("payments", tmp_path) is None)
    supervisor.check(100.0)
    assert pid_of("payments", tmp_path) not in (None, first)
    assert pid_of("kafka", tmp_path) == other
    assert (
        read_supervisor_state(tmp_path).restarts_of("payments"),
        read_supervisor_state(tmp_path).restarts_of("kafka"),
    ) == (1, 0)


async def test_crashing_process_is_restarted_with_backoff_and_then_abandoned(
    supervise: Supervise, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = supervise(up=False, payments=CRASHES)
    now = 0.0
    for crashes in range(1, CRASHES_ALLOWED):
        supervisor.check(now)  # records the crash
        if pause := pause_s(crashes):
            supervisor.check(now + pause - 0.1)
            assert read_supervisor_state(tmp_path).restarts_of("payments") == crashes - 1
            now += pause
            supervisor.check(now)
        assert read_supervisor_state(tmp_path).restarts_of("payments") == crashes
        await until(lambda: pid_of("payments", tmp_path) is None)
    assert now < CRASH_WINDOW_S
    supervisor.check(now)
    assert list(read_supervisor_state(tmp_path).given_up) == ["payments"]
    abandoned = [line for line in capsys.readouterr().out.splitlines() if "supervisor.abandoned" in line]
    assert len(abandoned) == 1
    assert "no disk left" in abandoned[0]
    supervisor.check(now + 10 * CRASH_WINDOW_S)
    assert read_supervisor_state(tmp_path).restarts_of("payments") == CRASHES_ALLOWED - 1


async def test_crashes_outside_the_window_do_not_count(supervise: Supervise, tmp_path: Path) -> None:
    supervisor = supervise(up=False, payments=CRASHES)
    for crash in range(2 * CRASHES_ALLOWED):
        supervisor.check(crash * CRASH_WINDOW_S)
        assert read_supervisor_state(tmp_path).restarts_of("payments") == crash + 1
        await until(lambda: pid_of("payments", tmp_path) is None)


def test_supervisor_restarts_nothing_while_a_command_holds_the_lock(
    supervise: Supervise, tmp_path: Path
) -> None:
    supervisor = supervise(up=False, payments=RUNS)
    with exclusive_lock(tmp_path):
        supervisor.check(0.0)
        assert pid_of("payments", tmp_path) is None
        with pytest.raises(Busy), exclusive_lock(tmp_path, within_s=0.1):
            pass
    supervisor.check(1.0)
    assert pid_of("payments", tmp_path) is not None


def test_supervisor_stops_when_its_directory_is_gone(supervise: Supervise, tmp_path: Path) -> None:
    supervisor = supervise(up=False, payments=RUNS)
    assert not supervisor.is_current()
    supervisor.run(registered_within_s=0.0)  # returns at once
    assert pid_of("payments", tmp_path) is None
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "supervisor.json", {"pid": os.getpid()})
    assert supervisor.is_current()


def test_process_whose_id_cannot_be_written_is_killed(tmp_path: Path) -> None:
    spec = ProcessSpec("payments", RUNS, dict(os.environ), "")
    (tmp_path / "run" / "payments.new").mkdir(parents=True)  # prevents writing the process id
    before = children()
    with pytest.raises(OSError, match="payments"):
        processes.start(spec, tmp_path / "run", tmp_path / "log")
    assert processes.find("payments", tmp_path / "run").pid is None
    assert children() <= before


def children() -> set[str]:
    """The children of this process."""
    pid = os.getpid()
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_new_supervisor_keeps_the_counts_and_retries_abandoned_processes(
    supervise: Supervise, tmp_path: Path
) -> None:
    supervise(up=False, payments=RUNS).check(0.0)
    again = supervise(payments=RUNS)
    assert read_supervisor_state(tmp_path).restarts_of("payments") == 1
    assert read_supervisor_state(tmp_path).given_up == []
    again.check(0.0)
    assert read_supervisor_state(tmp_path).restarts_of("payments") == 1, "the running process was restarted"
