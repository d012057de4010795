"""What the edge shows of pages while no gateway answers; nginx is real."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp

from tests.edge.nginx import need_nginx, running_edge
from tests.ports import free_port

PAGES = {
    "/overlay/winter": False,
    "/overlay/winter/?lang=ar": False,
    "/overlay/winter/setup": True,
    "/donate/winter": True,
}
"""Each with whether it shows anything: what a source of a streaming tool shows is seen by viewers."""


async def test_pages_reload_by_themselves_and_overlays_show_nothing(tmp_path: Path) -> None:
    need_nginx()
    async with running_edge(tmp_path / "edge", free_port()) as edge, aiohttp.ClientSession() as client:
        for path, shows in PAGES.items():
            async with client.get(f"{edge.url}{path}") as answer:
                text = await answer.text()
            assert (answer.status, answer.content_type) == (503, "text/html"), path
            assert answer.headers["Cache-Control"] == "no-store"
            assert '<meta http-equiv="refresh"' in text
            body = re.sub("<title>.*?</title>", "", text)
            assert bool(re.sub("<[^>]*>", "", body).strip()) is shows, path
