"""The status of a stack's processes: ports, readiness, memory, restarts and backlog."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import aiohttp

from backbone.http.caller import sign_caller
from stack import processes
from stack.layout import HOST, read_json, read_ports
from stack.memory import own_bytes, resident_bytes
from stack.probes import is_ready
from stack.process_specs import ORDER, SUPERVISOR
from stack.settings import SERVICES
from stack.supervisor import read_supervisor_state

_WITH_BACKLOG: Final = ("pledges", "payments", "leaderboard", "notify")


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """The status of one process; `pid` is None while it does not run.

    `waiting` counts pending work: unpublished outbox rows (`outbox`), unconsumed records (`behind`), …
    `restarts` counts restarts after crashes; `given_up` is true if the supervisor has abandoned it.
    """

    name: str
    pid: int | None
    port: int | None
    ready: bool
    memory_bytes: int
    waiting: Mapping[str, int]
    restarts: int = 0
    given_up: bool = False


async def process_statuses(directory: Path) -> list[ProcessStatus]:
    """The status of every process of the stack, in starting order."""
    ports = read_ports(directory)
    if not ports:
        return []
    secret = read_json(directory / "secrets.json").get("internal", "")
    state = read_supervisor_state(directory)
    found = await asyncio.gather(*(_process_status(directory, name, ports, secret) for name in ORDER))
    return [
        replace(one, restarts=state.restarts_of(one.name), given_up=one.name in state.given_up)
        for one in found
    ]


def quarantine_line(found: Iterable[ProcessStatus]) -> str:
    """A line about Stripe's webhooks that could not be applied; empty where there are none."""
    many = sum(one.waiting.get("set_aside", 0) for one in found)
    if not many:
        return ""
    what = "1 webhook from Stripe" if many == 1 else f"{many} webhooks from Stripe"
    return f"{what} could not be applied: GET /v1/webhooks?state=set_aside has the reasons (admin key)."


async def _process_status(directory: Path, name: str, ports: Mapping[str, int], secret: str) -> ProcessStatus:
    pid = processes.find(name, directory / "run").pid
    if pid is None:
        return ProcessStatus(name, None, ports.get(name), False, 0, {})
    if name == SUPERVISOR:
        return ProcessStatus(
            name, pid, None, True, own_bytes(pid), {}
        )  # the processes it restarted do not count
    probe = f"http://{HOST}:{ports[name]}/readyz" if name in SERVICES else f"tcp://{HOST}:{ports[name]}"
    ready = await is_ready(probe)
    waiting = await _waiting(ports[name], secret) if ready and name in _WITH_BACKLOG else {}
    return ProcessStatus(name, pid, ports[name], ready, resident_bytes(pid), waiting)


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
