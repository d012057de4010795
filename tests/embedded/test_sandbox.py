"""The sandbox process of the embedded run: restarted after a crash, stopped with its parent."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp

from embedded.sandbox import running_sandbox
from tests.waiting import until

SECRETS = {"stripe_key": "sk_test_kept", "stripe_webhook": "whsec_kept"}


def sandboxes(port: int) -> list[int]:
    """The ids of sandbox processes on `port`, found by their command lines."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"sandbox" in arguments and str(port).encode() in arguments:
                found.append(int(folder.name))
    return found


async def test_killed_sandbox_is_restarted_and_an_orphaned_one_exits(
    tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    port = unused_tcp_port_factory()
    async with (
        running_sandbox(port, "http://127.0.0.1:1/webhooks/stripe", tmp_path / "sandbox.db", SECRETS),
        aiohttp.ClientSession() as http,
    ):
        (first,) = sandboxes(port)
        os.kill(first, signal.SIGKILL)

        async def answers_anew() -> bool:
            if first in sandboxes(port):
                return False
            try:
                async with http.get(f"http://127.0.0.1:{port}/livez") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        assert await until(answers_anew)
        assert len(sandboxes(port)) == 1
    assert sandboxes(port) == []
