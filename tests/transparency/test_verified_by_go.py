"""A served log, verified by Go's `golang.org/x/mod/sumdb/{tlog,note}`, which shares no code with ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import update

from backbone.database.database import Database
from services.leaderboard.tables import drive_log
from tests.transparency.served_log import PREFIX, SIGNER, gifts, served_log
from tests.waiting import until

SOURCE = Path(__file__).parent / "verify"


def missing(what: str) -> None:
    """Skip, or fail where nothing may be missing."""
    if os.environ.get("ATAA_REQUIRE_REAL"):
        pytest.fail(what)
    pytest.skip(what)


@cache
def built(folder: Path) -> Path | str:
    """The program, or why it cannot be built."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        return "Go is not installed"
    environment = {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
    target = folder / "verify"
    command = [go, "build", "-o", str(target), "."]
    done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=False)
    return target if done.returncode == 0 else f"golang.org/x/mod cannot be had: {done.stderr[-500:]}"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = built(tmp_path_factory.mktemp("go"))
    if isinstance(found, str):
        missing(found)
    assert isinstance(found, Path)
    return found


async def verify(program: Path, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        str(program), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode().strip()


async def test_go_verifies_checkpoint_tiles_and_records(program: Path, tmp_path: Path) -> None:
    async with served_log(tmp_path) as log:
        rows = gifts(1_500)
        await log.append(rows[:300])
        base = log.gateway.url
        for index in ("0", "255", "256", "299"):
            arguments = (base, PREFIX, SIGNER.verifier_key(), index)
            assert await verify(program, *arguments) == (0, "300")
        origin = (await log.checkpoint())[0]
        assert await verify(program, base, f"{PREFIX}/1", SIGNER.verifier_key(origin), "7") == (0, "300")
        await log.append(rows[300:])

        async def signed() -> bool:
            log.expire_head()
            return (await log.checkpoint())[1] == "1500"

        await until(signed)
        for index in ("0", "299", "1280", "1499"):
            arguments = (base, PREFIX, SIGNER.verifier_key(), index)
            assert await verify(program, *arguments) == (0, "1500")


async def change_row(database: Database, sequence: int) -> None:
    async with database.transaction() as session:
        await session.execute(update(drive_log).where(drive_log.c.sequence == sequence).values(amount=1))


async def test_go_refuses_another_key_and_a_changed_row(program: Path, tmp_path: Path) -> None:
    async with served_log(tmp_path) as log:
        await log.append(gifts(300))
        assert (await log.checkpoint())[1] == "300"
        key = SIGNER.verifier_key("another.test")
        code, output = await verify(program, log.gateway.url, PREFIX, key, "0")
        assert (code, "no verifiable signatures" in output) == (1, True), output
        await change_row(log.database, 7)
        code, output = await verify(program, log.gateway.url, PREFIX, SIGNER.verifier_key(), "6")
        assert (code, "invalid transparency proof" in output) == (1, True), output
