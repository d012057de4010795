"""Draws in another process, one drawing at a time: neither the event loop nor the machine is held up."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

import gateway

TIMEOUT_S: Final = 15.0
MAX_WAITING: Final = 20
"""Drawings that wait for the one that is being made."""

log = structlog.get_logger()


class DrawingFailed(Exception):
    """Nothing was drawn: too many drawings wait, or the process failed."""


class Drawer:
    """Makes QR codes and pictures, each in a process of its own (`gateway.reach.drawing`)."""

    def __init__(self) -> None:
        self._waiting = 0
        self._turn = asyncio.Lock()

    async def qr_code(self, text: str) -> bytes:
        """A QR code of `text`, as SVG; raises `DrawingFailed`."""
        return await self._draw({"qr": text})

    async def picture(self, svg: str) -> bytes:
        """An SVG document as PNG; raises `DrawingFailed`."""
        return await self._draw({"picture": svg})

    async def _draw(self, request: Mapping[str, str]) -> bytes:
        if self._waiting >= MAX_WAITING:
            raise DrawingFailed("too many drawings wait")
        self._waiting += 1
        try:
            async with self._turn:
                return await _drawn(json.dumps(request).encode())
        finally:
            self._waiting -= 1


async def _drawn(request: bytes) -> bytes:
    """What one process draws; it is killed after `TIMEOUT_S`, or when the caller is cancelled."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.reach.drawing",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=Path(gateway.__file__).parents[1],
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # none of the gateway's secrets
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT_S):
            drawn, complaint = await process.communicate(request)
    except TimeoutError:
        raise DrawingFailed(f"nothing was drawn in {TIMEOUT_S:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode or not drawn:
        log.error(
            "reach.drawing_failed",
            exit=process.returncode,
            reason=complaint.decode("utf-8", "replace")[-500:],
        )
        raise DrawingFailed(f"the process ended with {process.returncode}")
    return drawn
