"""Debian's Firefox, driven by WebDriver BiDi over one WebSocket: the few commands that the form's tests need.

Firefox has the protocol built in and needs no driver (decision 34). Playwright drives only builds of its own.
Source: https://www.w3.org/TR/webdriver-bidi/
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.gateway.browsers import installed_browser
from tests.waiting import PATIENCE_S, until

KEYS: Final = {"Tab": "\ue004", "Enter": "\ue007", "Down": "\ue015", "Backspace": "\ue003"}
"""Keys without a character (WebDriver, 17.4.2)."""

PREFERENCES: Final[dict[str, object]] = {
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.cache.disk.enable": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.cookie.cookieBehavior": 5,  # the default: storage of frames is partitioned
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "ui.prefersReducedMotion": 1,
}


class CommandFailed(Exception):
    """Firefox refused a command, or an expression raised."""


def firefox_path() -> str:
    """The installed Firefox; without one the test is skipped, or fails with ATAA_REQUIRE_REAL=1."""
    return installed_browser("Firefox", "FIREFOX", "firefox-esr", "firefox")


class Firefox:
    """A running Firefox. `errors` are the script errors and refusals of a content policy in its pages."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def receive(self) -> None:
        """Take messages until the connection ends."""
        async for message in self._socket:
            self._take(json.loads(message.data))
        for future in self._waiting.values():
            future.cancel()

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
            self.errors.append(str(message["params"]["text"]))
        if (future := self._waiting.pop(message.get("id") or 0, None)) is None or future.done():
            return
        if message["type"] == "success":
            future.set_result(message["result"])
        else:
            future.set_exception(CommandFailed(f"{message['error']}: {message['message']}"))

    async def command(self, method: str, **params: Any) -> Any:
        """Send a command and return its result; raises CommandFailed."""
        number = next(self._ids)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(PATIENCE_S):
            return await self._waiting[number]

    @asynccontextmanager
    async def tab(self, width: int = 1280, height: int = 900) -> AsyncIterator[Tab]:
        """A tab with a session storage of its own. Fails on any error that a page reports meanwhile."""
        self.errors.clear()
        made = await self.command("browsingContext.create", type="tab")
        tab = Tab(self, made["context"])
        await self.command("browsingContext.activate", context=tab.context)
        viewport = {"width": width, "height": height}
        await self.command("browsingContext.setViewport", context=tab.context, viewport=viewport)
        yield tab
        await self.command("browsingContext.close", context=tab.context)
        assert self.errors == []


class Tab:
    """A tab, or with another context a frame in it."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self.context = context
        self._firefox = firefox

    async def goto(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        parameters = {"context": self.context, "url": url, "wait": "complete"}
        await self._firefox.command("browsingContext.navigate", **parameters)

    async def back(self) -> None:
        """Press the back button."""
        await self._firefox.command("browsingContext.traverseHistory", context=self.context, delta=-1)

    async def frame(self) -> Tab:
        """The first frame of the page, once there is one."""

        async def found() -> str | None:
            tree = await self._firefox.command("browsingContext.getTree", root=self.context)
            children = tree["contexts"][0]["children"]
            return str(children[0]["context"]) if children else None

        return Tab(self._firefox, await until(found))

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression, as JSON has it; raises CommandFailed."""
        found = await self._evaluated(f"(async () => JSON.stringify(({expression}) ?? null))()")
        return json.loads(found["value"])

    async def _evaluated(self, expression: str) -> dict[str, Any]:
        target = {"context": self.context}
        answer = await self._firefox.command(
            "script.evaluate", expression=expression, target=target, awaitPromise=True
        )
        if answer["type"] == "exception":
            raise CommandFailed(answer["exceptionDetails"]["text"])
        found: dict[str, Any] = answer["result"]
        return found

    async def becomes(self, expression: str) -> None:
        """Wait until an expression is true. It may fail meanwhile, as while a page is replaced."""

        async def holds() -> bool:
            try:
                return bool(await self.evaluate(expression))
            except CommandFailed:
                return False

        try:
            await until(holds)
        except TimeoutError:
            raise AssertionError(f"never true: {expression}") from None

    async def press(self, *keys: str) -> None:
        """Press keys, each by its name in `KEYS` or by its character."""
        actions = [
            {"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")
        ]
        await self._perform({"type": "key", "id": "keyboard", "actions": actions})

    async def click(self, selector: str, times: int = 1) -> None:
        """Click the middle of an element, once it is there."""
        await self.becomes(f"document.querySelector({selector!r}) !== null")
        await self.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{ block: 'center' }})")
        element = await self._evaluated(f"document.querySelector({selector!r})")
        origin = {"type": "element", "element": {"sharedId": element["sharedId"]}}
        moved = {"type": "pointerMove", "x": 0, "y": 0, "origin": origin}
        presses = [{"type": kind, "button": 0} for _ in range(times) for kind in ("pointerDown", "pointerUp")]
        await self._perform({"type": "pointer", "id": "mouse", "actions": [moved, *presses]})

    async def _perform(self, source: dict[str, Any]) -> None:
        await self._firefox.command("input.performActions", context=self.context, actions=[source])

    async def keep_picture(self, name: str) -> None:
        """Keep a picture of the whole page in the folder ATAA_SCREENSHOTS, if it is set."""
        if folder := os.environ.get("ATAA_SCREENSHOTS"):
            shot = await self._firefox.command(
                "browsingContext.captureScreenshot", context=self.context, origin="document"
            )
            (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def running_firefox(folder: Path) -> AsyncIterator[Firefox]:
    """Run a Firefox with a new profile in `folder`, without a window."""
    path = firefox_path()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
    (folder / "user.js").write_text("\n".join(lines))
    with (folder / "firefox.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            path, "--headless", "--no-remote", "--profile", str(folder), "--remote-debugging-port", "0",
            stdout=log, stderr=log, env={**os.environ, "MOZ_CRASHREPORTER_DISABLE": "1"},
        )  # fmt: skip
    try:
        address = folder / "WebDriverBiDiServer.json"
        await until(lambda: address.exists() and address.read_text().endswith("}"))
        port = json.loads(address.read_text())["ws_port"]
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(f"ws://127.0.0.1:{port}/session", max_msg_size=0) as socket,
        ):
            firefox = Firefox(socket)
            receiving = asyncio.create_task(firefox.receive())
            await firefox.command("session.new", capabilities={})
            await firefox.command("session.subscribe", events=["log.entryAdded"])
            yield firefox
            receiving.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
