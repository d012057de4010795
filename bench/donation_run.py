"""Gives donations to a running system, at a rate or saturated, and observes what reaches the screen.

A donation's delay runs from the answer to its capturing webhook to the first `totals` frame that covers it,
as in the demo's report. Donors arrive at random (a Poisson process with a fixed seed), so several often come
at once.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from bench.process_usage import Usage
from bench.systems import System
from rehearsal.api_client import ApiClient, NoAnswer, new_session
from rehearsal.curve import Arrival, Plan, gift_size
from rehearsal.donors import Credentials, Donors, LoadProfile
from rehearsal.drive import open_drive
from rehearsal.freshness import Freshness, percentile
from rehearsal.gifts import GiftPlanner
from rehearsal.live_stream import LiveStream
from rehearsal.proof import Auditor, Unreadable, difference
from stack.layout import read_json

WARM_UP_S: Final = 3.0
"""Donations of the first seconds are not counted: caches, connections and prepared statements are made."""
SEEN_S: Final = 30.0
"""How long the last donations may take to reach the screen."""
SETTLED_S: Final = 60.0
"""How long the books may take to agree after the last donation."""
SEED: Final = 16
MANY_DONORS: Final = 400
"""Donors that may be under way at a fixed rate; each takes well under a second."""
GENERATOR: Final = "bench"
_METRICS_TIMEOUT: Final = aiohttp.ClientTimeout(total=30.0)
STAGES: Final = "ataa_stage_seconds"
PATH: Final = ("applied payments", "relayed payments", "fetched leaderboard", "handled leaderboard",
               "published leaderboard", "received gateway", "pushed gateway")  # fmt: skip
"""The stages of `docs/performance.md` that follow each other from a webhook's answer to the screens."""


@dataclass(frozen=True, slots=True)
class DonationRun:
    """What was observed after the warm-up.

    `paid` donations were covered by a frame within `seconds`; `cores` has each process's mean CPU use;
    `difference` is the largest difference between two books at the end, in the drive's currency.
    """

    drive: str
    seconds: float
    paid: int
    delays_ms: Sequence[float]
    frames_per_s: float
    stages_ms: Mapping[str, float]
    cores: Mapping[str, float]
    errors: int
    difference: str

    @property
    def per_s(self) -> float:
        """Whole donations a second."""
        return self.paid / self.seconds

    @property
    def generator_share(self) -> float:
        """The generator's part of all CPU that the run used."""
        return self.cores[GENERATOR] / (sum(self.cores.values()) or 1.0)

    def delay_ms(self, share: float) -> float | None:
        """A percentile of the delays."""
        return percentile(self.delays_ms, share)

    def cpu_ms_a_donation(self, *names: str) -> float:
        """Milliseconds of CPU a donation, of the named processes or of all."""
        used = sum(self.cores.get(name, 0.0) for name in names or self.cores)
        return used / self.per_s * 1000 if self.paid else math.inf


async def donate(
    system: System,
    rate: float,
    seconds: float,
    donors: int,
    *,
    warm_up_s: float = WARM_UP_S,
    settle: bool = True,
    to: tuple[str, Credentials] | None = None,
) -> DonationRun:
    """Open a new drive and donate at `rate` for `seconds`; 0 is saturation with `donors` in flight.

    `to` is an open drive with the credentials to donate to it, instead of a new one.

    With `settle`, waits until the books agree. Raises NoAnswer where the last donations do not reach the
    screen, or the books do not agree.
    """
    plan = Plan("bench", arrivals(rate, seconds), gift_size, frozenset())
    run = f"bench-{time.time_ns()}"
    freshness = Freshness()
    drive = to[0] if to else run
    installation = system.installation_with(drive)
    async with new_session() as session:
        api = ApiClient(session, installation.gateway_url)
        keys = read_json(installation.directory / "keys.json")
        entry = to[1] if to else await open_drive(api, keys, run, run)
        watch = LiveStream(session, f"{installation.gateway_url}/v1/drives/{drive}/live", freshness)
        background = [asyncio.create_task(watch.follow())]
        try:
            async with asyncio.timeout(SEEN_S):
                await watch.has_totals.wait()
            freshness.log_sequence = int(watch.totals["sequence"])
            profile = LoadProfile(0.0 if rate else seconds, 0, MANY_DONORS if rate else donors)
            givers = Donors(api, drive, entry, profile)
            giving = asyncio.create_task(givers.donate_all(plan, GiftPlanner(plan, SEED, run)))
            background.append(giving)
            await asyncio.sleep(warm_up_s)
            before, frames = _usage(system), watch.frames
            stages = await _stages(session, system.metrics.values())
            await asyncio.sleep(max(0.1, seconds - warm_up_s))
            after, frames = _usage(system), watch.frames - frames
            await giving
            auditor = Auditor(installation, session, freshness)
            await _all_seen(auditor, freshness, givers)
            spent = _differences(stages, await _stages(session, system.metrics.values()))
            remaining = await _difference(auditor, SETTLED_S) if settle else "not read"
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
    spent_s = after.at - before.at
    return DonationRun(
        drive=drive,
        seconds=spent_s,
        paid=sum(before.at <= at <= after.at for at in freshness.seen_times()),
        delays_ms=freshness.delays_ms(since=before.at),
        frames_per_s=frames / spent_s,
        stages_ms=spent,
        cores=after.cores_since(before),
        errors=givers.tally.error_count,
        difference=remaining,
    )


def arrivals(rate: float, seconds: float) -> tuple[Arrival, ...]:
    """Random arrivals at `rate` a second with a fixed seed; none for rate 0."""
    rng = random.Random(SEED)  # noqa: S311 - a script, not a secret
    found: list[Arrival] = []
    at = rng.expovariate(rate) if rate else math.inf
    while at < seconds:
        found.append(Arrival(at, gift_size(rng)))
        at += rng.expovariate(rate)
    return tuple(found)


def _usage(system: System) -> Usage:
    return Usage.of({**system.processes, GENERATOR: os.getpid()}, shallow=("embedded", GENERATOR))


async def _all_seen(auditor: Auditor, freshness: Freshness, givers: Donors) -> None:
    give_up = time.monotonic() + SEEN_S
    while time.monotonic() < give_up:
        await auditor.read_new()
        if givers.tally.paid.keys() <= freshness.counted.keys() and len(freshness.seen_times()) == len(
            freshness.counted
        ):
            return
        await asyncio.sleep(0.5)
    raise NoAnswer(f"donations not on screen after {SEEN_S:.0f} s")


async def _difference(auditor: Auditor, within_s: float) -> str:
    """The difference between the books once it is 0; raises NoAnswer where it is not within `within_s`."""
    give_up = time.monotonic() + within_s
    while True:
        try:
            found = difference((await auditor.read_books()).books)
        except Unreadable as error:
            raise NoAnswer(str(error)) from error
        if not any(found.values()):
            return ", ".join(f"{amount} {currency}" for currency, amount in found.items())
        if time.monotonic() > give_up:
            apart = ", ".join(f"{amount} {currency}" for currency, amount in found.items())
            raise NoAnswer(f"the books still differ by {apart} after {within_s:.0f} s")
        await asyncio.sleep(0.5)


# What Prometheus would see: the mean of each stage.


async def _stages(session: aiohttp.ClientSession, addresses: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Seconds and observations of each stage so far."""
    found: dict[str, tuple[float, float]] = {}
    for address in addresses:
        async with session.get(address, timeout=_METRICS_TIMEOUT) as response:
            text = await response.text()
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if not name.startswith((f"{STAGES}_sum", f"{STAGES}_count")):
                continue
            labels = [name.partition(f'{label}="')[2].partition('"')[0] for label in ("stage", "service")]
            stage = " ".join(labels)
            if stage not in PATH:
                continue
            total, count = found.get(stage, (0.0, 0.0))
            is_sum = name.startswith(f"{STAGES}_sum")
            found[stage] = (total + float(value), count) if is_sum else (total, count + float(value))
    return found


def _differences(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """The mean of each stage in between, in milliseconds."""
    found = {}
    for stage, (total, count) in after.items():
        total_before, count_before = before.get(stage, (0.0, 0.0))
        if count > count_before:
            found[stage] = round((total - total_before) / (count - count_before) * 1000, 1)
    return {stage: found[stage] for stage in PATH if stage in found}
