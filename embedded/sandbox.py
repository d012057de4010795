"""Runs the Stripe sandbox as a child process, which ends when this process ends.

It is simpler than the supervisors of the stack and the rehearsal, which are not part of the image: one child,
restarted without a limit.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import structlog

from backbone.settings import exit_with_error

RESTART_DELAY_S: Final = 0.5
"""The pause between the sandbox's end and its restart."""

log = structlog.get_logger()


@asynccontextmanager
async def running_sandbox(
    port: int, webhook_url: str, data: Path, secrets: Mapping[str, str]
) -> AsyncIterator[None]:
    """Run the sandbox; enters when it accepts requests, and ends the process with an error if it does not.

    A sandbox that exits is restarted with the same port and data. Its standard input is a pipe of this
    process, whose end, even by SIGKILL, stops the sandbox too.
    """

    async def start() -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sandbox", "--exit-with-parent"),
            *("--port", str(port), "--webhook-url", webhook_url, "--data", str(data)),
            stdin=asyncio.subprocess.PIPE,
            env={
                **os.environ,
                "ATAA_STRIPE_API_KEY": secrets["stripe_key"],
                "ATAA_STRIPE_WEBHOOK_SECRETS": secrets["stripe_webhook"],
            },
        )

    process = await start()
    try:
        await _wait_until_ready(process, port)
    except BaseException:
        await _stop(process)
        raise
    supervising = asyncio.create_task(_supervise(process, start))
    try:
        yield
    finally:
        supervising.cancel()
        await asyncio.gather(supervising, return_exceptions=True)


async def _supervise(process: Process, start: Callable[[], Awaitable[Process]]) -> None:
    """Restart it whenever it exits, until cancelled; then stop it."""
    try:
        while True:
            status = await process.wait()
            log.error("sandbox.exited", status=status)
            await asyncio.sleep(RESTART_DELAY_S)
            process = await start()
    finally:
        await _stop(process)


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


async def _wait_until_ready(process: Process, port: int) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            if process.returncode is not None:
                exit_with_error(
                    f"ATAA_SANDBOX_PORT: the Stripe sandbox could not start on port {port} (see above)"
                )
            try:
                async with session.get(f"http://127.0.0.1:{port}/livez"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    exit_with_error(f"ATAA_SANDBOX_PORT: the Stripe sandbox on port {port} does not answer")
