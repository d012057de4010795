"""What dies is started again, ever more patiently, and given up at last; a command at work is left alone."""

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

STAYS = (sys.executable, "-c", "import time; time.sleep(600)")
DIES = (sys.executable, "-c", "print('no luck today')")

Keep = Callable[..., Supervisor]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """Makes a keeper of parts by name and command, which run already unless `up` is false."""
    names: list[str] = []

    def made(up: bool = True, **commands: tuple[str, ...]) -> Supervisor:
        names.extend(commands)
        parts = [ProcessSpec(name, command, dict(os.environ), "") for name, command in commands.items()]
        for spec in parts if up else ():
            processes.start(spec, tmp_path / "run", tmp_path / f"{spec.name}.log")
        return Supervisor(parts, tmp_path, lambda name: tmp_path / f"{name}.log")

    yield made
    for name in names:
        processes.stop(name, tmp_path / "run", signal.SIGKILL)


def pid_of(name: str, directory: Path) -> int | None:
    return processes.find(name, directory / "run").pid


async def test_what_was_killed_is_started_again_at_once_and_counted(keep: Keep, tmp_path: Path) -> None:
    supervisor = keep(kafka=STAYS, payments=STAYS)
    other, first = pid_of("kafka", tmp_path), pid_of("payments", tmp_path)
    assert other and first
    os.kill(first, signal.SIGKILL)
    await until(lambda: pid_of("payments", tmp_path) is None)
    supervisor.find(100.0)
    assert pid_of("payments", tmp_path) not in (None, first)
    assert pid_of("kafka", tmp_path) == other
    assert (
        read_supervisor_state(tmp_path).restarts_of("payments"),
        read_supervisor_state(tmp_path).restarts_of("kafka"),
    ) == (1, 0)


async def test_what_keeps_dying_is_tried_ever_more_patiently_and_given_up_loudly(
    keep: Keep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = keep(up=False, payments=DIES)
    now = 0.0
    for crashes in range(1, CRASHES_ALLOWED):
        supervisor.find(now)  # it is found dead
        if pause := pause_s(crashes):
            supervisor.find(now + pause - 0.1)
            assert read_supervisor_state(tmp_path).restarts_of("payments") == crashes - 1
            now += pause
            supervisor.find(now)
        assert read_supervisor_state(tmp_path).restarts_of("payments") == crashes
        await until(lambda: pid_of("payments", tmp_path) is None)
    assert now < CRASH_WINDOW_S
    supervisor.find(now)
    assert list(read_supervisor_state(tmp_path).given_up) == ["payments"]
    said = [line for line in capsys.readouterr().out.splitlines() if "keeper.gave_up" in line]
    assert len(said) == 1
    assert "no luck today" in said[0]
    supervisor.find(now + 10 * CRASH_WINDOW_S)
    assert read_supervisor_state(tmp_path).restarts_of("payments") == CRASHES_ALLOWED - 1


async def test_deaths_of_long_ago_are_forgiven(keep: Keep, tmp_path: Path) -> None:
    supervisor = keep(up=False, payments=DIES)
    for death in range(2 * CRASHES_ALLOWED):
        supervisor.find(death * CRASH_WINDOW_S)
        assert read_supervisor_state(tmp_path).restarts_of("payments") == death + 1
        await until(lambda: pid_of("payments", tmp_path) is None)


def test_nothing_is_started_while_a_command_is_at_work(keep: Keep, tmp_path: Path) -> None:
    supervisor = keep(up=False, payments=STAYS)
    with exclusive_lock(tmp_path):
        supervisor.find(0.0)
        assert pid_of("payments", tmp_path) is None
        with pytest.raises(Busy), exclusive_lock(tmp_path, within_s=0.1):
            pass
    supervisor.find(1.0)
    assert pid_of("payments", tmp_path) is not None


def test_a_keeper_whose_directory_is_gone_starts_nothing(keep: Keep, tmp_path: Path) -> None:
    supervisor = keep(up=False, payments=STAYS)
    assert not supervisor.is_current()
    supervisor.keep(registered_within_s=0.0)  # ends at once
    assert pid_of("payments", tmp_path) is None
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "keeper.json", {"pid": os.getpid()})
    assert supervisor.is_current()


def test_what_cannot_be_noted_down_is_not_left_running(tmp_path: Path) -> None:
    spec = ProcessSpec("payments", STAYS, dict(os.environ), "")
    (tmp_path / "run" / "payments.new").mkdir(parents=True)  # in the way of the note
    before = children()
    with pytest.raises(OSError, match="payments"):
        processes.start(spec, tmp_path / "run", tmp_path / "log")
    assert processes.find("payments", tmp_path / "run").pid is None
    assert children() <= before


def children() -> set[str]:
    """The processes that this one has started."""
    pid = os.getpid()
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_new_keeper_goes_on_counting_and_tries_again_what_was_given_up(keep: Keep, tmp_path: Path) -> None:
    keep(up=False, payments=STAYS).find(0.0)
    again = keep(payments=STAYS)
    assert read_supervisor_state(tmp_path).restarts_of("payments") == 1
    assert read_supervisor_state(tmp_path).given_up == []
    again.find(0.0)
    assert read_supervisor_state(tmp_path).restarts_of("payments") == 1, "it runs"
