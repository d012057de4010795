"""The Stripe sandbox as a process beside the embedded one; it ends when this process ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from backbone.settings import refuse


@asynccontextmanager
async def running_sandbox(
    port: int, webhook_url: str, data: Path, secrets: Mapping[str, str]
) -> AsyncIterator[None]:
    """Keep the sandbox running, from its first answer on; refuses the start when it gives none.

    Its standard input is a pipe of ours: at its end, however we died, the sandbox stops too.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rehearsal.sandbox", "--exit-with-parent"),
        *("--port", str(port), "--webhook-url", webhook_url, "--data", str(data)),
        stdin=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "ATAA_STRIPE_API_KEY": secrets["stripe_key"],
            "ATAA_STRIPE_WEBHOOK_SECRETS": secrets["stripe_webhook"],
        },
    )
    try:
        await _answering(process, port)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answering(process: asyncio.subprocess.Process, port: int) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            if process.returncode is not None:
                refuse(f"ATAA_SANDBOX_PORT: the Stripe sandbox could not start on port {port} (see above)")
            try:
                async with session.get(f"http://127.0.0.1:{port}/livez"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)
    refuse(f"ATAA_SANDBOX_PORT: the Stripe sandbox on port {port} does not answer")
