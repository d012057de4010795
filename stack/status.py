"""What a stack is doing: which parts run, on which ports, how far behind, with how much memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp

from backbone.http.caller import sign_caller
from stack import processes
from stack.keeper import read_kept
from stack.layout import HOST, read_json, read_ports
from stack.memory import own_bytes, resident_bytes
from stack.opening import answers
from stack.parts import KEEPER, ORDER
from stack.settings import SERVICES

_QUIET: Final = ("pledges", "payments", "leaderboard", "notify")


@dataclass(frozen=True, slots=True)
class Condition:
    """One part's: no `pid`, not running; `waiting` counts what is not yet said (outbox) or heard (behind).

    `restarts`: how often it was started again because it had died; `given_up`: it will not be any more.
    """

    name: str
    pid: int | None
    port: int | None
    ready: bool
    memory_bytes: int
    waiting: Mapping[str, int]
    restarts: int = 0
    given_up: bool = False


async def conditions(directory: Path) -> list[Condition]:
    """Every part that has ever been started here, in starting order."""
    ports = read_ports(directory)
    if not ports:
        return []
    secret = read_json(directory / "secrets.json").get("internal", "")
    kept = read_kept(directory)
    found = await asyncio.gather(*(_condition(directory, name, ports, secret) for name in ORDER))
    return [
        replace(one, restarts=kept.restarts_of(one.name), given_up=one.name in kept.given_up) for one in found
    ]


def set_aside_line(found: Iterable[Condition]) -> str:
    """What is said of Stripe's webhooks that could not be applied; empty where there are none."""
    many = sum(one.waiting.get("set_aside", 0) for one in found)
    if not many:
        return ""
    what = "1 webhook of Stripe" if many == 1 else f"{many} webhooks of Stripe"
    return f"{what} could not be applied: GET /v1/webhooks?state=set_aside says why (with an admin key)."


async def _condition(directory: Path, name: str, ports: Mapping[str, int], secret: str) -> Condition:
    pid = processes.look(name, directory / "run").pid
    if pid is None:
        return Condition(name, None, ports.get(name), False, 0, {})
    if name == KEEPER:
        return Condition(name, pid, None, True, own_bytes(pid), {})  # whom it started again is not its own
    probe = f"http://{HOST}:{ports[name]}/readyz" if name in SERVICES else f"tcp://{HOST}:{ports[name]}"
    ready = await answers(probe)
    waiting = await _waiting(ports[name], secret) if ready and name in _QUIET else {}
    return Condition(name, pid, ports[name], ready, resident_bytes(pid), waiting)


async def _waiting(port: int, secret: str) -> dict[str, int]:
    headers = sign_caller(secret, partner="ataa", scopes=("internal",))
    timeout = aiohttp.ClientTimeout(total=3.0)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"http://{HOST}:{port}/internal/quiet", headers=headers) as reply,
        ):
            return {name: int(count) for name, count in (await reply.json()).items()}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return {}
