"""The newest Open Graph picture of each drive, drawn at most every `INTERVAL_S` and where it changed."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from gateway.reach.drawer import Drawer, DrawingFailed

INTERVAL_S: Final = 10.0
MAX_DRIVES: Final = 200
"""Drives whose pictures are kept, about 70 kB in each language."""

FALLBACK: Final = (Path(__file__).parent / "fallback.png").read_bytes()
"""The picture of a drive whose own cannot be drawn."""


@dataclass(slots=True)
class _Drive:
    """Of each language the newest picture and the digest of what it shows; when the next one may be drawn."""

    drawn: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    next_at: float = float("-inf")
    drawing: asyncio.Task[None] | None = None

    def newest(self, lang: str) -> bytes:
        """The picture in this language, else in another one, else the fallback."""
        if lang in self.drawn:
            return self.drawn[lang][1]
        return next((png for _, png in self.drawn.values()), FALLBACK)


class Pictures:
    """Holds pictures in memory. A request past the rate gets the picture before."""

    def __init__(self, drawer: Drawer) -> None:
        self._drawer = drawer
        self._drives: OrderedDict[str, _Drive] = OrderedDict()

    async def of(self, drive_id: str, lang: str, svg: Callable[[], str]) -> bytes:
        """The drive's picture as PNG, as `svg` describes it where it may be drawn now."""
        drive = self._drives.setdefault(drive_id, _Drive())
        self._drives.move_to_end(drive_id)
        while len(self._drives) > MAX_DRIVES:
            self._drives.popitem(last=False)
        now = asyncio.get_running_loop().time()
        if now >= drive.next_at and drive.drawing is None:
            drive.next_at = now + INTERVAL_S
            drive.drawing = asyncio.create_task(self._draw(drive, lang, svg()))
            await asyncio.shield(drive.drawing)
        elif drive.drawing is not None and not drive.drawn:
            await asyncio.shield(drive.drawing)
        return drive.newest(lang)

    async def _draw(self, drive: _Drive, lang: str, svg: str) -> None:
        digest = sha256(svg.encode()).digest()
        try:
            if drive.drawn.get(lang, (b"",))[0] != digest:
                drive.drawn[lang] = digest, await self._drawer.picture(svg)
        except DrawingFailed:
            pass  # the picture before stays; the next request after the interval tries again
        finally:
            drive.drawing = None
