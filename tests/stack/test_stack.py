"""The stack through its commands: started, used, a service killed, inspected and stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from backbone.http.caller import sign_caller
from stack import kafka
from stack.layout import OFFSETS, read_json, read_ports
from stack.supervisor import read_supervisor_state
from tests.observability.programs import need
from tests.stack.stack_command import ROOT, need_engines, stack
from tests.waiting import PATIENCE_S, until


def free_base(first: int) -> int:
    """A base whose ports are all free, from `first`, which each test file has its own of."""
    for base in range(first, first + 4_000, 100):
        try:
            for offset in OFFSETS.values():
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base
    raise RuntimeError("no ports are free")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    data_dir = tmp_path_factory.mktemp("stack")
    need_engines(data_dir)
    base = free_base(24_000)
    started = stack(data_dir, base, "up")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield data_dir, base
    finally:
        stopped = stack(data_dir, base, "down")
        assert "postgres stopped" in stopped.stdout, stopped.stdout + stopped.stderr


def pid_of(data_dir: Path, name: str) -> int:
    return int(read_json(data_dir / "stack" / "run" / f"{name}.json")["pid"])


async def books(data_dir: Path, owner: str) -> Any:
    port = read_ports(data_dir / "stack")[owner]
    secret = read_json(data_dir / "stack" / "secrets.json")["internal"]
    headers = sign_caller(secret, partner="ataa", scopes=("internal",))
    url = f"http://127.0.0.1:{port}/internal/books"
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
        return await answer.json()


class Partner:
    """A partner that uses the public API with the admin key."""

    def __init__(self, client: aiohttp.ClientSession, url: str, admin: str) -> None:
        self._client, self._url, self._admin = client, url, admin

    async def post(self, path: str, body: Any = None, **headers: str) -> Any:
        address = path if path.startswith("http") else self._url + path
        own = {"Authorization": f"Bearer {self._admin}", **headers}
        async with self._client.post(address, json=body or {}, headers=own) as answer:
            assert answer.status in (200, 201), await answer.text()
            return await answer.json()

    async def open_drive(self, slug: str) -> None:
        await self.post("/v1/drives", {"slug": slug, "title": "Winter", "currency": "USD", "goal": MONEY})
        await self.post(f"/v1/drives/{slug}/open")

    async def donate(self, slug: str, key: str) -> None:
        pledge = await self.post(f"/v1/drives/{slug}/pledges", {"amount": MONEY}, **{"Idempotency-Key": key})
        checkout = await until(lambda: self._checkout_of(pledge), 60)
        paid = await self.post(f"{checkout['url']}/pay", {"card": "4242424242424242"})
        assert paid["payment_status"] == "paid"

    async def _checkout_of(self, pledge: Any) -> Any:
        address = f"{self._url}/v1/pledges/{pledge['id']}?token={pledge['token']}"
        async with self._client.get(address, headers={"Prefer": "wait=5"}) as answer:
            return (await answer.json())["checkout"] if answer.status == 200 else None

    async def text(self, path: str) -> str:
        """What an address without a key answers; empty unless it is 200."""
        async with self._client.get(self._url + path) as answer:
            return await answer.text() if answer.status == 200 else ""

    async def checkpoint(self, slug: str) -> str:
        """The signed head of a drive's log."""
        return await self.text(f"/v1/drives/{slug}/checkpoint")

    async def raised(self, slug: str) -> str:
        async with self._client.get(f"{self._url}/v1/drives/{slug}/totals") as answer:
            return str((await answer.json())["raised"]["value"]) if answer.status == 200 else ""


MONEY = {"currency": "USD", "value": "25.00"}


async def test_books_agree_after_a_service_was_killed_and_restarted(
    running: tuple[Path, int],
) -> None:
    data_dir, base = running
    keys = json.loads((data_dir / "stack" / "keys.json").read_text())
    assert keys["publishable"].startswith("pk_")
    async with aiohttp.ClientSession() as client:
        partner = Partner(client, f"http://127.0.0.1:{base}", keys["admin"])
        await partner.open_drive("winter")
        await partner.donate("winter", "first")
        await until(lambda: is_raised(partner, "25.00"))

        os.kill(pid_of(data_dir, "leaderboard"), signal.SIGKILL)
        await partner.donate("winter", "second")
        await until(lambda: is_raised(partner, "50.00"), 2 * PATIENCE_S)
        key = await partner.text("/.well-known/ataa-log-key")
        name, _, size, *_ = (
            (await until(lambda: partner.checkpoint("winter"))).replace("/v1", "\n", 1).split("\n")
        )
        assert key.startswith(f"{name}+")
        assert int(size) >= 2

    expected = {"USD": "50.00"}
    for owner in ("pledges", "payments", "leaderboard"):
        await until(lambda owner=owner: books_are(data_dir, owner, expected))  # type: ignore[misc]
    assert read_supervisor_state(data_dir / "stack").restarts_of("leaderboard") == 1


def test_demo_on_a_running_stack_ignores_earlier_donations(running: tuple[Path, int], tmp_path: Path) -> None:
    data_dir, base = running
    finished = demo(data_dir, base, tmp_path)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert f"Using the running stack at http://127.0.0.1:{base}" in finished.stdout
    report = json.loads((tmp_path / "demo-report.json").read_text())
    assert report["difference"] == {"USD": "0.00"}
    assert report["books"]["ledger"]["USD"] == report["raised"]["USD"]  # without the 50.00 donated before
    assert stack(*running, "status").returncode == 0


def test_demo_names_the_port_that_another_stack_uses(running: tuple[Path, int], tmp_path: Path) -> None:
    refused = demo(tmp_path, running[1], tmp_path, ATAA_GATEWAY_PORT=str(running[1] + 200))

    assert refused.returncode == 1
    assert f"port {running[1] + 1} (pledges) is in use" in refused.stdout, refused.stdout + refused.stderr


def test_rehearsal_reports_the_load_the_books_and_how_late_the_dashboard_is(
    running: tuple[Path, int], tmp_path: Path
) -> None:
    need("prometheus")
    short = ("--minutes", "2", "--faster", "60", "--times", "0.03")
    finished = rehearse(*running, tmp_path, *short)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "d/ataa-surge-overview?from=" in finished.stdout
    assert "The screen was" in finished.stdout
    report = json.loads((tmp_path / "rehearsal-report.json").read_text())
    assert report["difference"] == {"USD": "0.00"}
    assert (report["planned"]["donations"], report["planned"]["seconds"]) == (33, 2.0)
    assert 25 <= report["donations"] <= 33  # some donors never pay
    screen = report["dashboard"]
    assert screen["refreshes"] >= 1 and screen["failed"] == 0
    assert screen["behind_ms"]["p50"] >= screen["load_ms"]["p50"] > 0


def test_rehearsal_needs_a_running_stack(running: tuple[Path, int], tmp_path: Path) -> None:
    refused = rehearse(tmp_path, running[1], tmp_path)
    assert refused.returncode == 1
    assert f"rehearse: no stack runs in {tmp_path}; start one with make stack" in refused.stdout


def rehearse(data_dir: Path, base: int, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `make rehearse`; its report goes to `folder`."""
    return _rehearsal(data_dir, base, folder, "rehearse", *arguments)


def demo(data_dir: Path, base: int, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a short `make demo STACK=1`; its report goes to `folder`."""
    short = ("--seconds", "3", "--rush-seconds", "1", "--gifts", "30")
    return _rehearsal(data_dir, base, folder, "demo", "--real", "--exit", *short, **settings)


def _rehearsal(
    data_dir: Path, base: int, folder: Path, *arguments: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    stack_settings = {"ATAA_DATA_DIR": str(data_dir), "ATAA_STACK_PORT_BASE": str(base)}
    return subprocess.run(
        [sys.executable, "-m", "rehearsal", *arguments],
        cwd=folder,
        env={
            **inherited,
            "PYTHONPATH": str(ROOT),
            "ATAA_KAFKA_LIBS": libraries(),
            **stack_settings,
            **settings,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def libraries() -> str:
    """Kafka's jars, which `need_engines` has fetched."""
    found = kafka.find_libraries(ROOT / ".ataa", os.environ)
    assert found is not None
    return str(found)


async def is_raised(partner: Partner, value: str) -> bool:
    return await partner.raised("winter") == value


async def books_are(data_dir: Path, owner: str, expected: Any) -> bool:
    return bool(await books(data_dir, owner) == expected)


def test_status_lists_every_process_with_port_memory_and_backlog(running: tuple[Path, int]) -> None:
    output = stack(*running, "status").stdout
    assert next(line for line in output.splitlines() if line.startswith("supervisor "))
    for name in ("postgres", "kafka", "sandbox", "pledges", "payments", "leaderboard", "notify", "gateway"):
        line = next(line for line in output.splitlines() if line.startswith(f"{name} "))
        assert str(running[1] + OFFSETS[name]) in line
        assert " MB" in line
    assert "outbox 0" in output


def test_second_up_changes_nothing(running: tuple[Path, int]) -> None:
    before = pid_of(running[0], "kafka"), pid_of(running[0], "gateway")
    assert stack(*running, "up").returncode == 0
    assert (pid_of(running[0], "kafka"), pid_of(running[0], "gateway")) == before


def test_stack_on_other_ports_is_named(running: tuple[Path, int]) -> None:
    refused = stack(running[0], running[1] + 1000, "up")
    assert refused.returncode == 2
    assert f"already running on port {running[1]}" in refused.stderr


def test_logs_shows_one_process(running: tuple[Path, int]) -> None:
    assert "process.opened" in stack(*running, "logs", "payments", "--lines", "200").stdout
    assert stack(*running, "logs", "nobody").returncode == 2
