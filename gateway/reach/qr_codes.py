"""QR codes of donate links. A code depends on its link only, so each is drawn once and kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from backbone.http.problems import Overloaded
from gateway.reach.drawer import Drawer, DrawingFailed

MAX_KEPT: Final = 1000
"""Codes kept, 2 to 10 kB each."""


class QrCodes:
    """The QR codes asked for last; concurrent requests for one share its drawing."""

    def __init__(self, drawer: Drawer) -> None:
        self._drawer = drawer
        self._drawn: OrderedDict[str, bytes] = OrderedDict()
        self._drawing: dict[str, asyncio.Task[bytes]] = {}

    def knows(self, link: str) -> bool:
        """Whether the code need not be drawn."""
        return link in self._drawn

    async def of(self, link: str) -> bytes:
        """The code as SVG; raises `Overloaded` where it cannot be drawn now."""
        if link in self._drawn:
            self._drawn.move_to_end(link)
            return self._drawn[link]
        if link not in self._drawing:
            self._drawing[link] = asyncio.create_task(self._draw(link))
        return await asyncio.shield(self._drawing[link])

    async def _draw(self, link: str) -> bytes:
        try:
            self._drawn[link] = drawn = await self._drawer.qr_code(link)
        except DrawingFailed as error:
            raise Overloaded("The QR code cannot be drawn at the moment.", retry_after_s=5) from error
        finally:
            del self._drawing[link]
        while len(self._drawn) > MAX_KEPT:
            self._drawn.popitem(last=False)
        return drawn
