"""What dies is started again, ever more patiently, and given up at last; a command at work is left alone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stack import processes
from stack.alone import Busy, alone
from stack.keeper import DEATHS_ALLOWED, DEATHS_WITHIN_S, Keeper, pause_s, read_kept
from stack.layout import write_json
from stack.parts import Part
from tests.waiting import until

STAYS = (sys.executable, "-c", "import time; time.sleep(600)")
DIES = (sys.executable, "-c", "print('no luck today')")

Keep = Callable[..., Keeper]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """Makes a keeper of parts by name and command, which run already unless `up` is false."""
    names: list[str] = []

    def made(up: bool = True, **commands: tuple[str, ...]) -> Keeper:
        names.extend(commands)
        parts = [Part(name, command, dict(os.environ), "") for name, command in commands.items()]
        for part in parts if up else ():
            processes.start(part, tmp_path / "run", tmp_path / f"{part.name}.log")
        return Keeper(parts, tmp_path, lambda name: tmp_path / f"{name}.log")

    yield made
    for name in names:
        processes.stop(name, tmp_path / "run", signal.SIGKILL)


def pid_of(name: str, directory: Path) -> int | None:
    return processes.look(name, directory / "run").pid


async def test_what_was_killed_is_started_again_at_once_and_counted(keep: Keep, tmp_path: Path) -> None:
    keeper = keep(kafka=STAYS, payments=STAYS)
    other, first = pid_of("kafka", tmp_path), pid_of("payments", tmp_path)
    assert other and first
    os.kill(first, signal.SIGKILL)
    await until(lambda: pid_of("payments", tmp_path) is None)
    keeper.look(100.0)
    assert pid_of("payments", tmp_path) not in (None, first)
    assert pid_of("kafka", tmp_path) == other
    assert (read_kept(tmp_path).restarts_of("payments"), read_kept(tmp_path).restarts_of("kafka")) == (1, 0)


async def test_what_keeps_dying_is_tried_ever_more_patiently_and_given_up_loudly(
    keep: Keep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keeper = keep(up=False, payments=DIES)
    now = 0.0
    for deaths in range(1, DEATHS_ALLOWED):
        keeper.look(now)  # it is found dead
        if pause := pause_s(deaths):
            keeper.look(now + pause - 0.1)
            assert read_kept(tmp_path).restarts_of("payments") == deaths - 1
            now += pause
            keeper.look(now)
        assert read_kept(tmp_path).restarts_of("payments") == deaths
        await until(lambda: pid_of("payments", tmp_path) is None)
    assert now < DEATHS_WITHIN_S
    keeper.look(now)
    assert list(read_kept(tmp_path).given_up) == ["payments"]
    said = [line for line in capsys.readouterr().out.splitlines() if "keeper.gave_up" in line]
    assert len(said) == 1
    assert "no luck today" in said[0]
    keeper.look(now + 10 * DEATHS_WITHIN_S)
    assert read_kept(tmp_path).restarts_of("payments") == DEATHS_ALLOWED - 1


async def test_deaths_of_long_ago_are_forgiven(keep: Keep, tmp_path: Path) -> None:
    keeper = keep(up=False, payments=DIES)
    for death in range(2 * DEATHS_ALLOWED):
        keeper.look(death * DEATHS_WITHIN_S)
        assert read_kept(tmp_path).restarts_of("payments") == death + 1
        await until(lambda: pid_of("payments", tmp_path) is None)


def test_nothing_is_started_while_a_command_is_at_work(keep: Keep, tmp_path: Path) -> None:
    keeper = keep(up=False, payments=STAYS)
    with alone(tmp_path):
        keeper.look(0.0)
        assert pid_of("payments", tmp_path) is None
        with pytest.raises(Busy), alone(tmp_path, within_s=0.1):
            pass
    keeper.look(1.0)
    assert pid_of("payments", tmp_path) is not None


def test_a_keeper_whose_directory_is_gone_starts_nothing(keep: Keep, tmp_path: Path) -> None:
    keeper = keep(up=False, payments=STAYS)
    assert not keeper.is_called()
    keeper.keep(called_within_s=0.0)  # ends at once
    assert pid_of("payments", tmp_path) is None
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "keeper.json", {"pid": os.getpid()})
    assert keeper.is_called()


def test_what_cannot_be_noted_down_is_not_left_running(tmp_path: Path) -> None:
    part = Part("payments", STAYS, dict(os.environ), "")
    (tmp_path / "run" / "payments.new").mkdir(parents=True)  # in the way of the note
    before = children()
    with pytest.raises(OSError, match="payments"):
        processes.start(part, tmp_path / "run", tmp_path / "log")
    assert processes.look("payments", tmp_path / "run").pid is None
    assert children() <= before


def children() -> set[str]:
    """The processes that this one has started."""
    pid = os.getpid()
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_new_keeper_goes_on_counting_and_tries_again_what_was_given_up(keep: Keep, tmp_path: Path) -> None:
    keep(up=False, payments=STAYS).look(0.0)
    again = keep(payments=STAYS)
    assert read_kept(tmp_path).restarts_of("payments") == 1
    assert read_kept(tmp_path).given_up == []
    again.look(0.0)
    assert read_kept(tmp_path).restarts_of("payments") == 1, "it runs"
