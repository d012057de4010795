"""Several times the load that a system can take: what is accepted, what gives way, and what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from bench import open_load
from bench.event_loop import run_on_uvloop
from bench.figures.intake import open_new_drive, order_of
from bench.http_load import LoadReport, send
from bench.open_load import OpenOrder, OpenReport
from bench.results import Detail, Measured
from bench.systems import System
from rehearsal.api_client import ApiClient, new_session
from rehearsal.donors import Credentials
from rehearsal.freshness import percentile

CONNECTIONS: Final = 8_000
PROBE_S: Final = 0.1
"""Between two reads of the totals, each on a new connection."""
RECOVERED_WITHIN_S: Final = 90.0
STEPS: Final = ("recent", "boards", "snapshots", "streams", "pledges")


@dataclass(frozen=True, slots=True)
class OverloadOptions:
    """`times` the peak is sent for `seconds`; the peak is measured for `peak_s` before and after."""

    times: float = 5.0
    seconds: float = 20.0
    peak_s: float = 8.0
    connections: int = 128


@dataclass(slots=True)
class Watch:
    """What readers saw meanwhile: delays of totals on new connections, and which steps were named on them."""

    delays_ms: list[float] = field(default_factory=list)
    unanswered: int = 0
    seen: set[str] = field(default_factory=set)
    new_streams: dict[int, int] = field(default_factory=dict)
    is_degraded: bool = False

    async def follow(self, base: str, drive: str) -> None:
        """Until cancelled: read the totals, and every tenth time ask for a stream, on new connections."""
        timeout = aiohttp.ClientTimeout(total=10.0)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(base, connector=connector, timeout=timeout) as session:
            number = 0
            while True:
                await self._read_totals(session, drive)
                if number % 10 == 0:
                    await self._ask_for_stream(session, drive)
                number += 1
                await asyncio.sleep(PROBE_S)

    def delay_ms(self, share: float) -> float | None:
        """A percentile of the delays of totals."""
        return percentile(sorted(self.delays_ms), share)

    def details(self) -> dict[str, Detail]:
        """The delays, what was not answered, and what was seen."""
        return {
            "p50_ms": self.delay_ms(0.5),
            "p99_ms": self.delay_ms(0.99),
            "reads": len(self.delays_ms),
            "unanswered": self.unanswered,
            "steps_seen": " ".join(step for step in STEPS if step in self.seen),
            **{f"new_streams_{status}": count for status, count in sorted(self.new_streams.items())},
        }

    async def _read_totals(self, session: aiohttp.ClientSession, drive: str) -> None:
        began = time.perf_counter()
        try:
            async with session.get(f"/v1/drives/{drive}/totals") as reply:
                totals = await reply.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError):
            self.unanswered += 1
            return
        if reply.status != 200:
            self.unanswered += 1
            return
        self.delays_ms.append((time.perf_counter() - began) * 1000)
        self.seen.update(totals.get("degraded", ()))
        self.is_degraded = "degraded" in totals

    async def _ask_for_stream(self, session: aiohttp.ClientSession, drive: str) -> None:
        try:
            async with session.get(f"/v1/drives/{drive}/live") as reply:
                self.new_streams[reply.status] = self.new_streams.get(reply.status, 0) + 1
        except (aiohttp.ClientError, TimeoutError):
            self.unanswered += 1


@dataclass(frozen=True, slots=True)
class Overload:
    """What one run observed; `shed_s` has the seconds for which each step of the ladder was on."""

    report: OpenReport
    watch: Watch
    shed_s: Mapping[str, float]
    recovered_s: float
    lost: int


def measure(system: System, options: OverloadOptions) -> Iterator[Measured]:
    """The figures of `overload`, for the embedded system or the stack."""
    drive = f"overload-{time.time_ns()}"
    entry = run_on_uvloop(open_new_drive(system, drive))
    peak = _peak(system, drive, "before", entry, options)
    found = run_on_uvloop(_overload(system, drive, entry, options, peak.per_s))
    after = _peak(system, drive, "after", entry, options)
    suffix = "" if system.name == "embedded" else "_stack"
    report = found.report
    accepted_per_s = report.in_time / report.seconds
    value = accepted_per_s / peak.per_s
    yield Measured(f"overload{suffix}", value, None, _load_details(report, peak, after))
    if report.p99_ms is not None:
        yield Measured(f"overload_p99{suffix}", report.p99_ms, None, _delay_details(report))
    if (p99_ms := found.watch.delay_ms(0.99)) is not None:
        yield Measured(f"overload_totals{suffix}", p99_ms, None, found.watch.details())
    yield Measured(f"overload_lost{suffix}", found.lost, None, {"accepted": len(report.accepted)})
    steps: dict[str, Detail] = {f"{name}_s": found.shed_s.get(name, 0.0) for name in STEPS}
    yield Measured(f"overload_recovery{suffix}", found.recovered_s, None, steps)


def _load_details(report: OpenReport, peak: LoadReport, after: LoadReport) -> dict[str, Detail]:
    """`…_a_cpu_s`: for a second of Ataa's own CPU, which compares even where others take the cores."""
    accepted_per_s = report.in_time / report.seconds
    return {
        "peak_per_s": peak.per_s,
        "peak_after_per_s": after.per_s,
        "accepted_per_s": accepted_per_s,
        "peak_a_cpu_s": peak.per_s / _own(peak.cores),
        "accepted_a_cpu_s": accepted_per_s / _own(report.cores),
        "due_per_s": report.due / report.seconds,
        "refused": report.refused,
        "unsent": report.unsent,
        "errors": report.errors,
        "first_error": report.first_error or None,
        "unanswered": report.unanswered,
        "most_connections": report.most_connections,
        **{f"cores_{name}": cores for name, cores in report.cores.items()},
    }


def _own(cores: Mapping[str, float]) -> float:
    return max(sum(used for name, used in cores.items() if name != "generator"), 0.001)


def _delay_details(report: OpenReport) -> dict[str, Detail]:
    return {
        "p50_ms": report.p50_ms,
        "p99_ms": report.p99_ms,
        "refused_p50_ms": report.refused_p50_ms,
        "refused_p99_ms": report.refused_p99_ms,
    }


def _peak(system: System, drive: str, name: str, entry: Credentials, options: OverloadOptions) -> LoadReport:
    """Pledges without overload: a closed loop with a few connections."""
    order = order_of(
        system.installation.gateway_port, drive, f"peak-{name}", entry.secret,
        options.connections, options.peak_s, system.own_processes,
    )  # fmt: skip
    return send(order)


async def _overload(
    system: System, drive: str, entry: Credentials, options: OverloadOptions, peak_per_s: float
) -> Overload:
    base = system.installation.gateway_url
    address = system.metrics.get("embedded") or system.metrics["gateway"]
    request = order_of(system.installation.gateway_port, drive, "overload", entry.secret, 0, 0.0).request
    order = OpenOrder(
        system.installation.gateway_port,
        request,
        peak_per_s * options.times,
        options.seconds,
        CONNECTIONS,
        system.own_processes,
    )
    async with new_session() as session:
        watch, before = Watch(), await _shed_s(session, address)
        watching = asyncio.create_task(watch.follow(base, drive))
        try:
            report = await open_load.send(order)
            ended = time.monotonic()
            watched = Watch(list(watch.delays_ms), watch.unanswered, set(watch.seen), dict(watch.new_streams))
            recovered_s = await _recovered_s(watch, ended)
        finally:
            watching.cancel()
        after = await _shed_s(session, address)
        api = ApiClient(session, base)
        lost = set(report.accepted) - await _listed(api, drive, entry.secret)
    shed_s = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in STEPS}
    return Overload(report, watched, shed_s, recovered_s, len(lost))


async def _recovered_s(watch: Watch, since: float) -> float:
    """Seconds until the totals name nothing that gives way, at most `RECOVERED_WITHIN_S`."""
    seen = len(watch.delays_ms)
    while (took_s := time.monotonic() - since) < RECOVERED_WITHIN_S:
        if len(watch.delays_ms) > seen and not watch.is_degraded:
            return took_s
        await asyncio.sleep(PROBE_S)
    return took_s


async def _listed(api: ApiClient, drive: str, secret: str) -> set[str]:
    """The ids of all pledges of a drive, as its partner lists them."""
    headers = {"Authorization": f"Bearer {secret}"}
    found: set[str] = set()
    after = ""
    while True:
        reply = await api.get(f"/v1/pledges?drive={drive}&limit=100{after}", headers)
        found.update(one["id"] for one in reply.body["data"])
        if reply.body["next"] is None:
            return found
        after = f"&after={reply.body['next']}"


async def _shed_s(session: aiohttp.ClientSession, address: str) -> dict[str, float]:
    """Seconds for which each step was on since the process began, by its metrics."""
    name = "ataa_gateway_shedding_seconds_total{lane="
    async with session.get(address) as reply:
        lines = [line for line in (await reply.text()).splitlines() if line.startswith(name)]
    return {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines}
