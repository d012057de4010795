"""A storm of pledges faster than the processor opens checkouts: the queue drains, and no figure grows.

36,000 pledges come at 40 a second (15 minutes), and the processor opens 25 checkouts a second. Time is
compressed: both rates are multiplied, so the queue grows as long and the run takes less time. Every donor
asks for the pledge until it has a checkout, each time when three quarters of its estimate are over, and pays.

The time includes what the machine needs: the embedded process takes about 6 ms of CPU a donation, and at a
compression of 4 or more a storm of this length needs more than a core. `cores_embedded` shows it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import single_figure
from bench.event_loop import run_on_uvloop
from bench.process_usage import Usage
from bench.results import Detail
from bench.steps import Advance, Steps
from bench.systems import ROOT, System, embedded_system, first_free_port
from rehearsal.api_client import ApiClient, new_session
from rehearsal.drive import open_drive
from rehearsal.freshness import Freshness
from rehearsal.proof import Auditor, difference
from stack.layout import read_json

PLEDGES: Final = 36_000
ARRIVALS_PER_S: Final = 40.0
CHECKOUTS_PER_S: Final = 25.0
OWN_RATE: Final = 0.96
"""The queue's own limit as a share of the processor's: other calls to it count as well."""

SLACK: Final = 1.25
"""The aim is at most so many times the time that the processor's limit needs for these checkouts."""

CARD: Final = "4242424242424242"
IN_FLIGHT: Final = 256
SHORTEST_PAUSE_S: Final = 0.2
ASKED_AFTER: Final = 0.75
"""The share of its estimate after which a donor asks again: some five times in the longest queue."""
DRAINED_WITHIN_S: Final = 120.0
BODY: Final = {"amount": {"currency": "USD", "value": "25.00"}}


@dataclass(frozen=True, slots=True)
class StormOptions:
    """How many pledges, and by how much time is compressed."""

    pledges: int = PLEDGES
    compression: float = 3.0


@dataclass(slots=True)
class Told:
    """What donors were told: the figures that grew, and the largest ones."""

    answers: int = 0
    grown_positions: int = 0
    grown_etas: int = 0
    most_position: int = 0
    most_eta_s: int = 0

    def note(self, before: Mapping[str, int] | None, queue: Mapping[str, int] | None) -> None:
        """Compare what a donor is told with what the same donor was told before."""
        if queue is None:
            return
        self.answers += 1
        position, eta_s = queue["position"], queue["eta_seconds"]
        self.most_position, self.most_eta_s = max(self.most_position, position), max(self.most_eta_s, eta_s)
        if before is not None:
            self.grown_positions += position > before["position"]
            self.grown_etas += eta_s > before["eta_seconds"]


@dataclass(slots=True)
class Storm:
    """One run: when the last pledge was made and when the last was paid, in seconds of real time."""

    told: Told = field(default_factory=Told)
    paid: int = 0
    errors: list[str] = field(default_factory=list)
    storm_s: float = 0.0
    drained_s: float = 0.0
    difference: str = ""
    cores: Mapping[str, float] = field(default_factory=dict)


def measure(folder: Path, rows: int, steps: Steps) -> Mapping[str, Detail]:
    """`storm`: the time until the queue has drained, in the drive's time; `rows` limits the pledges."""
    options = StormOptions(min(PLEDGES, rows))
    with steps.step(f"storm: paying {options.pledges:,} pledges", options.pledges) as advance:
        found = run(folder, options, advance)
    floor_s = options.pledges / CHECKOUTS_PER_S
    details: dict[str, Detail] = {
        "pledges": options.pledges,
        "paid": found.paid,
        "errors": len(found.errors),
        "first_error": found.errors[0] if found.errors else None,
        "difference": found.difference,
        "compression": options.compression,
        "storm_s": found.storm_s * options.compression,
        "answers": found.told.answers,
        "grown_positions": found.told.grown_positions,
        "grown_etas": found.told.grown_etas,
        "longest_position": found.told.most_position,
        "longest_eta_s": found.told.most_eta_s * options.compression,
        **{f"cores_{process}": cores for process, cores in sorted(found.cores.items())},
        "floor_is": f"the pledges at {CHECKOUTS_PER_S:.0f} checkouts a second",
    }
    drained_s = found.drained_s * options.compression
    figure = single_figure.of(
        "From the first pledge of a storm to its last payment",
        drained_s,
        "s",
        floor_s * SLACK,
        details,
        floor_s,
    )
    return {**figure, "reached": bool(figure["reached"]) and is_whole(found, options)}


def is_whole(found: Storm, options: StormOptions) -> bool:
    """Whether every pledge was paid, the books agree, and nobody was told a figure that grew."""
    grown = found.told.grown_positions + found.told.grown_etas
    apart = any(character in "123456789" for character in found.difference)
    return found.paid == options.pledges and not (found.errors or grown or apart)


def run(folder: Path, options: StormOptions, advance: Advance = lambda _: None) -> Storm:
    """Start an embedded system on an empty folder, and let the storm pass."""
    settings = {"ATAA_STRIPE_RATE_PER_S": str(CHECKOUTS_PER_S * options.compression * OWN_RATE)}
    with embedded_system(ROOT, folder, first_free_port(), settings) as system:
        return run_on_uvloop(_storm(system, options, advance))


async def _storm(system: System, options: StormOptions, advance: Advance) -> Storm:
    installation = system.installation
    async with new_session() as session:
        api = ApiClient(session, installation.gateway_url)
        drive = f"storm-{time.time_ns()}"
        entry = await open_drive(api, read_json(installation.directory / "keys.json"), drive, drive)
        limit = {"rate_limit_per_s": CHECKOUTS_PER_S * options.compression}
        await api.post(f"{installation.sandbox_url}/_sandbox/faults", limit)
        donors, before = _Donors(api, drive, entry.secret, advance), _usage(system)
        await donors.arrive(options.pledges, ARRIVALS_PER_S * options.compression)
        donors.storm.cores = _usage(system).cores_since(before)
        auditor = Auditor(system.installation_with(drive), session, Freshness())
        donors.storm.difference = await _difference(auditor)
        return donors.storm


def _usage(system: System) -> Usage:
    return Usage.of({**system.processes, "generator": os.getpid()}, shallow=("embedded", "generator"))


class _Donors:
    """Donors who pledge, ask until there is a checkout, and pay."""

    def __init__(self, api: ApiClient, drive: str, secret: str, advance: Advance) -> None:
        self.storm = Storm()
        self._advance = advance
        self._api = api
        self._path = f"/v1/drives/{drive}/pledges"
        self._drive = drive
        self._headers = {"Authorization": f"Bearer {secret}"}
        self._calls = asyncio.Semaphore(IN_FLIGHT)
        self._began = time.monotonic()

    async def arrive(self, pledges: int, per_s: float) -> None:
        """All of them, at this rate; returns when the last has paid."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(pledges):
                await asyncio.sleep(max(0.0, number / per_s - self._passed))
                group.create_task(self._donate(number))

    @property
    def _passed(self) -> float:
        return time.monotonic() - self._began

    async def _donate(self, number: int) -> None:
        try:
            url = await self._checkout(await self._pledge(number))
            async with self._calls:
                reply = await self._api.post(f"{url}/pay", {"card": CARD})
            if reply.body.get("payment_status") != "paid":
                raise RuntimeError(f"paying: {reply.problem}")
            self.storm.paid += 1
        except Exception as error:
            self.storm.errors.append(f"donor {number}: {error}"[:200])
        self.storm.drained_s = self._passed
        self._advance(1)

    async def _pledge(self, number: int) -> Mapping[str, Any]:
        headers = self._headers | {"Idempotency-Key": f"{self._drive}-{number}"}
        async with self._calls:
            reply = await self._api.post(self._path, BODY, headers)
        if reply.status != 201:
            raise RuntimeError(f"pledging: {reply.problem}")
        self.storm.storm_s = self._passed
        return reply.body

    async def _checkout(self, pledge: Mapping[str, Any]) -> str:
        """Wait for the checkout, and compare what the donor is told each time with the time before."""
        path = f"/v1/pledges/{pledge['id']}?token={pledge['token']}"
        before: Mapping[str, int] | None = None
        while (checkout := pledge.get("checkout")) is None:
            queue = pledge.get("queue")
            self.storm.told.note(before, queue)
            before = queue or before
            await asyncio.sleep(max(SHORTEST_PAUSE_S, ASKED_AFTER * queue["eta_seconds"] if queue else 0.0))
            async with self._calls:
                reply = await self._api.get(path)
            if reply.status != 200 or reply.body.get("status") != "open":
                raise RuntimeError(f"asking: {reply.problem}, {reply.body.get('status')}")
            pledge = reply.body
        return str(checkout["url"])


async def _difference(auditor: Auditor) -> str:
    """The difference between the books once it is 0, or what is left of it."""
    give_up = time.monotonic() + DRAINED_WITHIN_S
    while True:
        found = difference((await auditor.read_books()).books)
        if not any(found.values()) or time.monotonic() > give_up:
            return ", ".join(f"{amount} {currency}" for currency, amount in found.items())
        await asyncio.sleep(0.5)
