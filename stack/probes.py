"""Readiness probes of processes: an HTTP address that answers 200, or a TCP port that accepts connections."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import aiohttp


async def is_ready(probe: str) -> bool:
    """Whether `probe` succeeds within two seconds: `http://…` or `tcp://host:port`."""
    if probe.startswith("tcp:"):
        return await connects(probe)
    timeout = aiohttp.ClientTimeout(total=2.0)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(probe) as reply:
            return reply.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def connects(address: str) -> bool:
    """Whether `tcp://host:port` accepts a connection within two seconds."""
    parts = urlsplit(address)
    try:
        async with asyncio.timeout(2.0):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
