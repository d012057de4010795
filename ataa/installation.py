"""Where the services of the installation are, and requests to them."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from pydantic import Field

from backbone.http.caller import sign_caller
from backbone.settings import HttpUrl, Settings

SERVICES: Final = ("pledges", "payments", "leaderboard", "notify")
TIMEOUT_S: Final = 120.0
_PROBE_S: Final = 1.0


class CommandSettings(Settings):
    """The settings of the command: those of the gateway that tell where the services are."""

    url_pledges: HttpUrl = Field("http://127.0.0.1:8001", description="Where pledges is.")
    url_payments: HttpUrl = Field("http://127.0.0.1:8002", description="Where payments is.")
    url_leaderboard: HttpUrl = Field("http://127.0.0.1:8003", description="Where leaderboard is.")
    url_notify: HttpUrl = Field("http://127.0.0.1:8004", description="Where notify is.")


class Unreachable(Exception):
    """A service does not answer, or no installation was found; the message says what to do."""


class Refused(Exception):
    """A service answered with a problem; the message is its detail."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The addresses of the services and the secret that their internal routes require."""

    urls: Mapping[str, str]
    secret: str
    name: str


def find_installation(settings: CommandSettings) -> Installation:
    """The services that `ATAA_INTERNAL_SECRET` and `ATAA_URL_…` name, else those that run on this machine.

    Of the latter, the embedded run in the data directory precedes the stack. Raises `Unreachable`.
    """
    if secret := settings.internal_secret.get_secret_value():
        urls = {name: getattr(settings, f"url_{name}") for name in SERVICES}
        return Installation(urls, secret, "the services that ATAA_URL_… name")
    for folder in (settings.data_dir, settings.data_dir / "stack", settings.data_dir / "demo"):
        found = _running_in(folder)
        if found is not None:
            return found
    raise Unreachable(
        f"Nothing runs in {settings.data_dir.absolute()}. Start it (make run, make stack), set ATAA_DATA_DIR,"
        " or set ATAA_INTERNAL_SECRET and ATAA_URL_PLEDGES, _PAYMENTS, _LEADERBOARD and _NOTIFY."
    )


def _running_in(folder: Path) -> Installation | None:
    ports, secrets = _read(folder / "ports.json"), _read(folder / "secrets.json")
    if "internal" not in secrets or not all(name in ports for name in SERVICES):
        return None
    try:
        socket.create_connection(("127.0.0.1", int(ports["payments"])), _PROBE_S).close()
    except OSError:
        return None
    urls = {name: f"http://127.0.0.1:{ports[name]}" for name in SERVICES}
    return Installation(urls, str(secrets["internal"]), str(folder))


def _read(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class Services:
    """The services' internal routes."""

    def __init__(self, installation: Installation, session: aiohttp.ClientSession) -> None:
        self._installation = installation
        self._session = session

    async def ask(self, service: str, path: str, body: Mapping[str, Any]) -> Any:
        """POST JSON to an internal route. Raises `Unreachable` and `Refused`."""
        url = self._installation.urls[service] + path
        caller = sign_caller(self._installation.secret, partner="ataa", scopes=("internal",))
        try:
            async with self._session.post(url, json=body, headers=caller) as reply:
                answer = await reply.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unreachable(
                f"{service} does not answer at {url}: {type(error).__name__} {error}"
            ) from error
        if reply.status == 200:
            return answer
        detail = answer.get("detail", "") if isinstance(answer, dict) else ""
        if reply.status in (404, 409, 422) and detail:
            raise Refused(f"{detail}")
        if reply.status == 401:
            raise Unreachable(f"{service} refuses the internal secret: ATAA_INTERNAL_SECRET is another one.")
        if reply.status == 404:
            raise Unreachable(f"{service} has no route {path}: it is an earlier version.")
        raise Unreachable(f"{service} answered {reply.status} to {path}: {detail}")


@asynccontextmanager
async def services(settings: CommandSettings) -> AsyncIterator[Services]:
    """The services of the installation. Raises `Unreachable` where there is none."""
    installation = find_installation(settings)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield Services(installation, session)
