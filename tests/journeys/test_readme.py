"""Every command in the README is run: here, or by CI for the demo and the tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
from asyncio import create_subprocess_exec
from pathlib import Path

import aiohttp
import pytest

from tests.journeys.embedded_system import ROOT, EmbeddedSystem
from tests.ports import free_port
from tests.waiting import PATIENCE_S, until

README = (ROOT / "README.md").read_text()
BLOCKS = dict(re.findall(r"<!-- test: (\w+) -->\n```sh\n(.*?)```", README, flags=re.DOTALL))
RUN_BY_CI = {"make demo", "make test", "make demo STACK=1"}
STARTED_HERE = {"make run"}


@pytest.mark.asyncio(loop_scope="session")
async def test_readme_commands_work_from_drive_to_total(system: EmbeddedSystem, tmp_path: Path) -> None:
    output = await run_commands(system, tmp_path, "drive", "pledge", "pay")
    assert '"payment_status":"paid"' in output.replace(" ", "")
    await system.wait_for_raised("winter", "25.00")
    output = await run_commands(system, tmp_path, "read")
    assert '"raised":{"currency":"USD","value":"25.00"}' in output
    assert '"slug":"aboflah"' in output
    assert "event: totals" in output


async def run_commands(system: EmbeddedSystem, folder: Path, *blocks: str) -> str:
    """Run blocks of the README unchanged except for this system's address; return their output."""
    script = "set -e\n" + "\n".join(BLOCKS[name] for name in blocks)
    script = script.replace("http://127.0.0.1:8000", system.url)
    script = script.replace(".ataa/keys.json", str(system.folder / "data" / "keys.json"))
    script = script.replace("--max-time 2", "--max-time 5")  # on a busy machine the first frame takes longer
    done = await create_subprocess_exec(
        *("bash", "-c", script), cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, trouble = await done.communicate()
    assert done.returncode == 0, trouble.decode()
    return output.decode()


def test_every_readme_command_is_run_by_a_test() -> None:
    shown = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    left_out = [block for block in shown if block not in BLOCKS.values()]
    assert {block.strip() for block in left_out} <= RUN_BY_CI | STARTED_HERE


@pytest.mark.parametrize("target", ["help", "settings"])
def test_make_lists_targets_and_settings(target: str) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "ATAA_"))
    }
    done = subprocess.run(
        ["make", target],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    for word in {"help": ("demo", "run", "test", "check"), "settings": ("ATAA_GATEWAY_PORT", "8012")}[target]:
        assert word in done.stdout


async def test_make_run_serves_until_interrupted(tmp_path: Path) -> None:
    port, theirs = str(free_port()), ("MAKE", "ATAA_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    environment |= {
        "ATAA_DATA_DIR": str(tmp_path / "data"),
        "ATAA_GATEWAY_PORT": port,
        "ATAA_SANDBOX_PORT": str(free_port()),
    }
    with (tmp_path / "log").open("wb") as log:
        run = await create_subprocess_exec(
            "make", "run", cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        await until(lambda: _answers(f"http://127.0.0.1:{port}/readyz"), 3 * PATIENCE_S)
        assert {"admin", "publishable"} <= json.loads((tmp_path / "data" / "keys.json").read_text()).keys()
    finally:
        os.killpg(run.pid, signal.SIGINT)  # as Ctrl-C does: to make and to everything it started
        await asyncio.wait_for(run.wait(), PATIENCE_S)
    assert "Traceback" not in (tmp_path / "log").read_text()


async def _answers(url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status == 200
    return False
