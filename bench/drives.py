"""How current many drives are while one of them is viral, against the same drives while none is.

Donors give to many drives at random, first alone and then while one other drive receives many more gifts;
both phases alternate in one run. A delay runs from the answer to a gift's capturing webhook to the first
`totals` frame of its drive that covers it. Every drive's stream is followed.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from bench import single_figure
from bench.donation_run import SEED, arrivals
from bench.event_loop import run_on_uvloop
from bench.figures.fanout import require_open_files
from bench.process_usage import Usage
from bench.progress import Progress
from bench.results import Detail
from bench.systems import ROOT, System, embedded_system, first_free_port, stack_system
from rehearsal.api_client import ApiClient, NoAnswer, new_session
from rehearsal.donors import Refused
from rehearsal.freshness import Freshness, percentile
from rehearsal.live_stream import LiveStream
from stack.layout import read_json

AT_ONCE: Final = 16
"""Drives that are created at the same time."""
MOST_IN_FLIGHT: Final = 400
SEEN_S: Final = 120.0
DELIVERIES_PAGE: Final = 1_000
LOG_PAGE: Final = 100
GENERATOR: Final = "bench"
VIRAL: Final = 0
"""The number of the drive that becomes viral; it receives nothing else."""


@dataclass(frozen=True, slots=True)
class Load:
    """Gifts a second to all other drives together and to the viral one, and how long each phase lasts."""

    drives: int
    others_per_s: float
    viral_per_s: float
    seconds: float
    rounds: int


@dataclass(slots=True)
class Phase:
    """The delays of a phase in milliseconds, of the other drives and of the viral one, and cores used."""

    others_ms: list[float] = field(default_factory=list)
    viral_ms: list[float] = field(default_factory=list)
    cores: list[Mapping[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class Gifts:
    """Makes gifts and knows the pledges of each drive."""

    api: ApiClient
    secret: str
    slugs: Sequence[str]
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_IN_FLIGHT))
    paid: dict[str, int] = field(default_factory=dict)
    """The number of the drive by pledge."""
    failed: int = 0

    async def give(self, number: int, key: str) -> None:
        """Pledge to a drive and pay; a failure is counted."""
        async with self.room:
            try:
                self.paid[await self._give(self.slugs[number], key)] = number
            except (NoAnswer, Refused):
                self.failed += 1

    async def _give(self, slug: str, key: str) -> str:
        body = {"amount": {"currency": "USD", "value": "25.00"}}
        headers = {"Authorization": f"Bearer {self.secret}", "Idempotency-Key": key, "Prefer": "wait=5"}
        reply = await self.api.post(f"/v1/drives/{slug}/pledges", body, headers)
        if reply.status != 201:
            raise Refused(f"pledge: {reply.problem}")
        pledge = reply.body
        while pledge.get("checkout") is None:
            address = f"/v1/pledges/{pledge['id']}?token={reply.body['token']}"
            read = await self.api.get(address, {"Prefer": "wait=5"})
            if read.status != 200 or read.body.get("status") != "open":
                raise Refused(f"checkout: {read.problem}")
            pledge = read.body
        paid = await self.api.post(f"{pledge['checkout']['url']}/pay", {"card": "4242424242424242"})
        if paid.status != 200:
            raise Refused(f"payment: {paid.problem}")
        return str(pledge["id"])


class Observer:
    """Follows the stream of every drive, and joins frames, log rows and acknowledged webhooks."""

    def __init__(self, api: ApiClient, sandbox_url: str, slugs: Sequence[str]) -> None:
        self._api = api
        self._sandbox_url = sandbox_url
        self._slugs = slugs
        self._deliveries = Freshness()
        self.freshness = [Freshness() for _ in slugs]
        for one in self.freshness:
            one.acknowledged = self._deliveries.acknowledged
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, session: aiohttp.ClientSession) -> None:
        """Open every stream, and wait until each has begun."""
        streams = [
            LiveStream(session, f"{self._api.base_url}/v1/drives/{slug}/live", one)
            for slug, one in zip(self._slugs, self.freshness, strict=True)
        ]
        for number, stream in enumerate(streams):
            self._tasks.append(asyncio.create_task(stream.follow()))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0.05)
        async with asyncio.timeout(SEEN_S * 2):
            await asyncio.gather(*(stream.has_totals.wait() for stream in streams))

    async def close(self) -> None:
        """End the streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until_seen(self, paid: Mapping[str, int]) -> None:
        """Read logs and deliveries until each of these gifts is covered by a frame. Raises NoAnswer."""
        give_up = time.monotonic() + SEEN_S
        while True:
            waiting = [(one, number) for one, number in paid.items() if not self._is_seen(one, number)]
            if not waiting:
                return
            if time.monotonic() > give_up:
                raise NoAnswer(f"{len(waiting)} gifts are not on screen after {SEEN_S:.0f} s")
            for number in {number for _, number in waiting}:
                await self._read_log(number)
            await self._read_deliveries()
            await asyncio.sleep(0.2)

    def _is_seen(self, pledge: str, number: int) -> bool:
        freshness = self.freshness[number]
        sequence = freshness.counted.get(pledge)
        return (
            sequence is not None
            and freshness.seen_at(sequence) is not None
            and pledge in freshness.acknowledged
        )

    async def _read_log(self, number: int) -> None:
        freshness = self.freshness[number]
        while True:
            query = f"after={freshness.log_sequence}&limit={LOG_PAGE}"
            reply = await self._api.get(f"/v1/drives/{self._slugs[number]}/events?{query}")
            rows = reply.body.get("data", [])
            freshness.note_log(rows)
            if len(rows) < LOG_PAGE:
                return

    async def _read_deliveries(self) -> None:
        while True:
            query = f"after={self._deliveries.deliveries_read}&limit={DELIVERIES_PAGE}"
            page = (await self._api.get(f"{self._sandbox_url}/_sandbox/deliveries?{query}")).body
            self._deliveries.note_deliveries(
                page["data"], int(page["next"] or self._deliveries.deliveries_read)
            )
            if len(page["data"]) < DELIVERIES_PAGE:
                return


async def observe(system: System, load: Load, progress: Progress) -> tuple[Phase, Phase, int]:
    """The quiet and the viral phase, and how many gifts failed."""
    run = f"drives-{time.time_ns()}"
    slugs = [f"{run}-{number}" for number in range(load.drives)]
    async with new_session() as session:
        api = ApiClient(session, system.installation.gateway_url)
        progress.begin(f"opening {load.drives:,} drives on the {system.name} system")
        secret = await _open(api, read_json(system.installation.directory / "keys.json"), run, slugs)
        observer = Observer(api, system.installation.sandbox_url, slugs)
        gifts = Gifts(api, secret, slugs)
        quiet, viral = Phase(), Phase()
        try:
            await observer.follow(session)
            warm_up = Load(load.drives, load.others_per_s, 0.0, 5.0, 1)
            await _phase(system, observer, gifts, Phase(), warm_up, f"{run}-warm")
            for number in range(load.rounds):
                progress.begin(f"round {number + 1} of {load.rounds}: no drive viral", load.seconds)
                alone = Load(load.drives, load.others_per_s, 0.0, load.seconds, 1)
                await _phase(system, observer, gifts, quiet, alone, f"{run}-quiet-{number}")
                progress.begin(f"round {number + 1} of {load.rounds}: one drive viral", load.seconds)
                await _phase(system, observer, gifts, viral, load, f"{run}-viral-{number}")
        finally:
            await observer.close()
    return quiet, viral, gifts.failed


async def _open(api: ApiClient, keys: Mapping[str, str], run: str, slugs: Sequence[str]) -> str:
    """Open the drives; the secret key of a partner that pledges to them."""
    admin = {"Authorization": f"Bearer {keys['admin']}"}

    async def post(path: str, body: Mapping[str, object] | None, what: str) -> Mapping[str, object]:
        reply = await api.post(path, body, admin | {"Idempotency-Key": f"{run}-{what}"})
        if reply.status not in (200, 201):
            raise Refused(f"POST {path}: {reply.problem}")
        return reply.body

    async def some(numbers: Iterable[int]) -> None:
        for number in numbers:
            slug, goal = slugs[number], {"currency": "USD", "value": "100000.00"}
            body = {"slug": slug, "title": {"en": slug}, "currency": "USD", "goal": goal}
            await post("/v1/drives", body, f"drive-{number}")
            await post(f"/v1/drives/{slug}/open", None, f"open-{number}")

    partner = {"kind": "secret", "partner": "bench", "name": "bench", "scopes": ["pledges"]}
    secret = str((await post("/v1/keys", partner, "key"))["key"])
    await asyncio.gather(*(some(range(first, len(slugs), AT_ONCE)) for first in range(AT_ONCE)))
    return secret


async def _phase(
    system: System, observer: Observer, gifts: Gifts, phase: Phase, load: Load, run: str
) -> None:
    """Give for `load.seconds`, wait until all is on screen, and add the delays to `phase`."""
    rng = random.Random(f"{SEED}-{run[-8:]}")  # noqa: S311 - a script, not a secret
    times = [(one.at_s, rng.randrange(1, load.drives)) for one in arrivals(load.others_per_s, load.seconds)]
    times += [(one.at_s, VIRAL) for one in arrivals(load.viral_per_s, load.seconds)]
    known = set(gifts.paid)
    processes = {**system.processes, GENERATOR: os.getpid()}
    began, before = time.time(), Usage.of(processes, shallow=("embedded", GENERATOR))
    started = time.monotonic()
    giving = []
    for number, (at, drive) in enumerate(sorted(times)):
        await asyncio.sleep(max(0.0, started + at - time.monotonic()))
        giving.append(asyncio.create_task(gifts.give(drive, f"{run}-{number}")))
    await asyncio.gather(*giving)
    phase.cores.append(Usage.of(processes, shallow=("embedded", GENERATOR)).cores_since(before))
    await observer.until_seen({one: drive for one, drive in gifts.paid.items() if one not in known})
    for number, freshness in enumerate(observer.freshness):
        (phase.viral_ms if number == VIRAL else phase.others_ms).extend(freshness.delays_ms(since=began))


def measure(load: Load, file: Path, note: str, progress: Progress, *, stack: bool) -> None:
    """Run on a new system, and write the results to `file`."""
    require_open_files(load.drives * 2)
    start = stack_system if stack else embedded_system
    with (
        tempfile.TemporaryDirectory(prefix="ataa-bench-", ignore_cleanup_errors=True) as directory,
        start(ROOT, Path(directory), first_free_port()) as system,
    ):
        quiet, viral, failed = run_on_uvloop(observe(system, load, progress))
        progress.begin(f"stopping the {system.name} system")
    p99, quiet_p99 = (percentile(sorted(one.others_ms), 0.99) or 0.0 for one in (viral, quiet))
    details: dict[str, Detail] = {
        "drives": load.drives,
        "others_per_s": load.others_per_s,
        "viral_per_s": load.viral_per_s,
        "seconds": load.seconds * load.rounds,
        "quiet_p50_ms": percentile(sorted(quiet.others_ms), 0.5),
        "quiet_p99_ms": quiet_p99,
        "p50_ms": percentile(sorted(viral.others_ms), 0.5),
        "p99_ms": p99,
        "viral_p50_ms": percentile(sorted(viral.viral_ms), 0.5),
        "viral_p99_ms": percentile(sorted(viral.viral_ms), 0.99),
        "gifts_of_others": len(quiet.others_ms) + len(viral.others_ms),
        "gifts_of_the_viral_one": len(viral.viral_ms),
        "gifts_that_failed": failed,
        "quiet_cores": _mean_cores(quiet),
        "cores": _mean_cores(viral),
    }
    what = f"freshness p99 of {load.drives - 1:,} drives while one is viral, to that while none is"
    figure = single_figure.of(what, p99 / quiet_p99, "×", 2, details)
    name = "drives_stack" if stack else "drives"
    single_figure.write(file, {name: figure}, {"note": note, "load_average": os.getloadavg()[0]})


def _mean_cores(phase: Phase) -> float:
    return sum(sum(one.values()) for one in phase.cores) / max(len(phase.cores), 1)
