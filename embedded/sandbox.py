"""The Stripe sandbox as a process beside the embedded one; it ends when this process ends."""

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

AGAIN_S: Final = 0.5
"""After its end the sandbox is started again, this much later."""

log = structlog.get_logger()


@asynccontextmanager
async def running_sandbox(
    port: int, webhook_url: str, data: Path, secrets: Mapping[str, str]
) -> AsyncIterator[None]:
    """Keep the sandbox running, from its first answer on; refuses the start when it gives none.

    One that dies is started again, on the same port and data. Its standard input is a pipe of ours: at
    its end, however we died, the sandbox stops too.
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
        await _answering(process, port)
    except BaseException:
        await _stop(process)
        raise
    keeping = asyncio.create_task(_keep(process, start))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep(process: Process, start: Callable[[], Awaitable[Process]]) -> None:
    """Start it again whenever it has ended, until cancelled; then it is stopped."""
    try:
        while True:
            status = await process.wait()
            log.error("sandbox.ended", status=status)
            await asyncio.sleep(AGAIN_S)
            process = await start()
    finally:
        await _stop(process)


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


async def _answering(process: Process, port: int) -> None:
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
