"""Creates the demo's publishable key through the public API."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import aiohttp

from stack.layout import Layout, read_json, write_json

WITHIN_S: Final = 20.0


async def make_publishable_key(layout: Layout) -> None:
    """Add a publishable key to `keys.json`, once. Raises RuntimeError where the API refuses."""
    file = layout.directory / "keys.json"
    keys = read_json(file)
    if "publishable" in keys:
        return
    port = layout.ports["gateway"]
    origins = [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
    body = {"kind": "publishable", "name": "demo", "origins": origins}
    headers = {"Authorization": f"Bearer {keys['admin']}"}
    give_up = time.monotonic() + WITHIN_S
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.post(f"{layout.url('gateway')}/v1/keys", json=body, headers=headers) as reply:
                if reply.status == 201:
                    write_json(file, {**keys, "publishable": (await reply.json())["key"]})
                    return
                if reply.status < 500 or time.monotonic() > give_up:
                    raise RuntimeError(
                        f"the demo's publishable key could not be created: {await reply.text()}"
                    )
            await asyncio.sleep(0.2)
