"""A browser's side of the console over HTTP: a login, its cookie, and forms with their hidden fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from typing import Any

import aiohttp


@dataclass
class Browser:
    """One logged-in client. `session` has the gateway's address as its base."""

    session: aiohttp.ClientSession
    url: str
    cookie: str = ""

    async def log_in(self, key: str) -> None:
        """Log in to the console; fails where the key is refused."""
        form = {"key": key, "to": "/console"}
        reply = await self.session.post(
            "/session", data=form, headers={"Origin": self.url}, allow_redirects=False
        )
        assert reply.status == 303, await reply.text()
        self.cookie = reply.headers["Set-Cookie"].partition(";")[0]

    async def get(self, path: str) -> tuple[int, str]:
        """Status and HTML of a page."""
        async with self.session.get(path, headers={"Cookie": self.cookie}, allow_redirects=False) as reply:
            return reply.status, await reply.text()

    async def post(self, path: str, fields: Any, **headers: str) -> tuple[int, str, str]:
        """Status, Location and HTML of the answer to a form."""
        sent = {"Cookie": self.cookie, "Origin": self.url, **headers}
        async with self.session.post(path, data=fields, headers=sent, allow_redirects=False) as reply:
            return reply.status, reply.headers.get("Location", ""), await reply.text()

    async def submit(self, page: str, path: str, fields: dict[str, str]) -> tuple[int, str, str]:
        """Post `fields` with the hidden CSRF token and form key that `page` carries."""
        status, html = await self.get(page)
        assert status == 200, html
        return await self.post(path, {**hidden_in(html), **fields})


def hidden_in(html: str) -> dict[str, str]:
    """The CSRF token, and the form's key if there is one."""
    found = {}
    for name in ("csrf", "once"):
        held = re.search(rf'name="{name}" value="([^"]*)"', html)
        if held is not None:
            found[name] = unescape(held[1])
    return found
