"""A client of the public API that repeats a request until it has a final response."""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

RETRY_FOR_S: Final = 120.0
"""How long a request is retried: longer than a killed system needs to restart."""

REQUEST_TIMEOUT: Final = aiohttp.ClientTimeout(total=20.0, sock_connect=3.0)
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_LONGEST_RETRY_AFTER_S: Final = 15.0
_FINAL_CONFLICTS: Final = ("drive-closed", "refund-exceeds-payment")


class NoAnswer(Exception):
    """A request failed until its retries ended; the message names it and the last failure."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A final response.

    `in_doubt` is true if an earlier attempt had no response and may have been executed.
    """

    status: int
    body: Mapping[str, Any]
    in_doubt: bool

    @property
    def problem(self) -> str:
        """The status, type and detail of the problem (RFC 9457) in one line."""
        return f"{self.status} {self.body.get('type', '')} {self.body.get('detail', '')}".strip()


def new_session() -> aiohttp.ClientSession:
    """One HTTP session for a rehearsal: keep-alive, no cookies, no compression."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60.0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=REQUEST_TIMEOUT,
        headers={"Accept-Encoding": "identity"},
    )


class ApiClient:
    """Sends requests to `base_url` (or to an absolute address) until they have a final response.

    A lost connection, a timeout, 429, 5xx and a transient conflict (the first request with a key is in
    progress, the payment is not recorded yet) are retried for `retry_for_s`; `Retry-After` is respected.
    """

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, retry_for_s: float = RETRY_FOR_S
    ) -> None:
        self.base_url = base_url
        self._session = session
        self._retry_for_s = retry_for_s
        self.retries = 0
        self.last_failure = ""

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Send a GET. Raises NoAnswer."""
        return await self._send("GET", path, None, headers or {})

    async def post(
        self, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a POST with a JSON body, byte for byte the same in each attempt. Raises NoAnswer."""
        payload = json.dumps(body or {}, ensure_ascii=False).encode()
        return await self._send(
            "POST", path, payload, {"Content-Type": "application/json", **(headers or {})}
        )

    async def _send(self, method: str, path: str, payload: bytes | None, headers: Mapping[str, str]) -> Reply:
        url = path if path.startswith("http") else self.base_url + path
        give_up = time.monotonic() + self._retry_for_s
        pause_s = _FIRST_PAUSE_S
        in_doubt = False
        while True:
            retry_after_s: float | None = None
            try:
                async with self._session.request(method, url, data=payload, headers=headers) as response:
                    text = await response.read()
                    reply = Reply(response.status, _json(text), in_doubt)
                    if not _is_retryable(reply):
                        return reply
                    retry_after_s = _seconds(response.headers.get("Retry-After"))
                    failure = reply.problem
                    in_doubt = in_doubt or reply.status >= 500
            except aiohttp.ClientConnectorError as error:
                failure = str(error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                failure = f"{type(error).__name__} {error}".strip()
                in_doubt = True
            wait_s = retry_after_s if retry_after_s is not None else pause_s * random.uniform(0.5, 1.0)  # noqa: S311
            if time.monotonic() + wait_s > give_up:
                raise NoAnswer(f"{method} {url.partition('?')[0]}: {failure}")
            self.retries += 1
            self.last_failure = f"{method} {url.partition('?')[0]}: {failure}"
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _is_retryable(reply: Reply) -> bool:
    """Whether a retry can succeed."""
    if reply.status == 409:
        return not str(reply.body.get("type", "")).endswith(_FINAL_CONFLICTS)
    return reply.status == 429 or reply.status >= 500


def _json(text: bytes) -> Mapping[str, Any]:
    """The JSON object of a response; anything else, such as a proxy's HTML, becomes a problem's detail."""
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"detail": text[:200].decode(errors="replace")}


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` in seconds (RFC 9110, 10.2.3); a date counts as one second."""
    if retry_after is None:
        return None
    try:
        return min(max(float(retry_after), 0.0), _LONGEST_RETRY_AFTER_S)
    except ValueError:
        return 1.0
