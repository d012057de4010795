"""A service as its own process, started while its dependencies are unavailable."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest

from tests.forked_process import ForkedProcess
from tests.ports import free_port
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).resolve().parents[2]


def environment(data_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    return kept | {"ATAA_DATA_DIR": str(data_dir), **settings}


def refusal(module: str, tmp_path: Path, **settings: str) -> str:
    """The line with which the startup is refused."""
    log = tmp_path / "said"
    status = ForkedProcess(module, [], environment(tmp_path, settings), log).wait(PATIENCE_S)
    assert status == 2, log.read_text()
    lines = log.read_text().strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("module", "settings", "named"),
    [
        ("services.pledges", {}, "ATAA_KAFKA_BOOTSTRAP"),
        ("services.payments", {"ATAA_KAFKA_BOOTSTRAP": "nowhere"}, "ATAA_KAFKA_BOOTSTRAP"),
        ("services.notify", {"ATAA_KAFKA_BOOTSTRAP": "127.0.0.1:9"}, "ATAA_INTERNAL_SECRET"),
        (
            "gateway",
            {
                "ATAA_KAFKA_BOOTSTRAP": "127.0.0.1:9",
                "ATAA_INTERNAL_SECRET": "s",
                "ATAA_URL_PLEDGES": "pledges:8001",
            },
            "ATAA_URL_PLEDGES",
        ),
        (
            "services.pledges",
            {"ATAA_KAFKA_BOOTSTRAP": "127.0.0.1:9", "ATAA_INTERNAL_SECRET": "s"},
            "ATAA_TOKEN_SECRET",
        ),
    ],
    ids=["no Kafka", "no port", "no secret", "no scheme", "no token secret"],
)
def test_invalid_setting_exits_with_one_line_that_names_it(
    module: str, settings: dict[str, str], named: str, tmp_path: Path
) -> None:
    assert refusal(module, tmp_path, **settings).startswith(f"ataa: {named}: ")


@contextlib.contextmanager
def running(module: str, tmp_path: Path, port_name: str, **settings: str) -> Iterator[tuple[str, Path]]:
    """A service without Kafka; its URL and its log."""
    port = free_port()
    told = {
        "ATAA_KAFKA_BOOTSTRAP": f"127.0.0.1:{free_port()}",
        "ATAA_INTERNAL_SECRET": "secret",
        "ATAA_TOKEN_SECRET": "secret",
        port_name: str(port),
        **settings,
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT,
            env=environment(tmp_path, told),
            stdout=output,
            stderr=output,
        )
    try:
        yield f"http://127.0.0.1:{port}", log
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


async def status(url: str) -> tuple[int, str]:
    with contextlib.suppress(aiohttp.ClientError):
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            return answer.status, await answer.text()
    return 0, ""


async def test_pledges_are_ready_without_kafka_and_its_absence_is_logged(tmp_path: Path) -> None:
    with running("services.pledges", tmp_path, "ATAA_PLEDGES_PORT") as (url, log):

        async def ready() -> bool:
            return (await status(f"{url}/readyz"))[0] == 200

        await until(ready)
        await until(lambda: "process.kafka_unavailable" in log.read_text())


async def test_leaderboard_is_not_ready_before_kafka_is_reachable(tmp_path: Path) -> None:
    with running("services.leaderboard", tmp_path, "ATAA_LEADERBOARD_PORT") as (url, log):
        await until(lambda: "process.opened" in log.read_text())
        assert await status(f"{url}/readyz") == (503, "not ready: Kafka\n")
        assert (await status(f"{url}/livez"))[0] == 200


async def test_unavailable_database_is_retried_and_shown_by_readiness(tmp_path: Path) -> None:
    away = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    with running("services.pledges", tmp_path, "ATAA_PLEDGES_PORT", ATAA_DATABASE_URL_PLEDGES=away) as (
        url,
        log,
    ):
        await until(lambda: "process.database_unavailable" in log.read_text())
        assert await status(f"{url}/readyz") == (503, "not ready: the database\n")
        assert (await status(f"{url}/livez"))[0] == 200
        code, words = await status(f"{url}/v1/drives/winter")
        assert (code, '"type": "/problems/not-ready"' in words) == (503, True)
