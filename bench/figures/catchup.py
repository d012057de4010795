"""How fast leaderboard consumes a log that has grown while it did not run."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from backbone.bus.protocol import EventBus
from backbone.bus.sqlite import SqliteBus
from backbone.contracts import PaymentChanged
from backbone.contracts.event import decode
from backbone.contracts.payments import PaymentStatus
from backbone.ids import CreatorId, DonorId, DriveId, PaymentId, new
from backbone.money import Money
from bench import child
from bench.event_loop import run_on_uvloop
from bench.flame import Flames
from bench.results import Measured
from bench.single_service import message_of
from bench.systems import System
from rehearsal.api_client import ApiClient, new_session
from rehearsal.donors import Credentials
from rehearsal.drive import open_drive
from rehearsal.gifts import CREATORS
from stack.layout import read_json

WITHIN_S: Final = 180.0
BATCH: Final = 1_000
_HANDLED: Final = 'ataa_consumer_events_total{group="leaderboard"}'
_POLL_S: Final = 0.1
_WARM_UP: Final = 0.05
"""The part of the log that is consumed before the measurement begins."""


@dataclass(frozen=True, slots=True)
class FilledDrive:
    """An open drive whose log is to be filled, and the credentials to donate to it."""

    drive_id: str
    slug: str
    creator_ids: Sequence[str]
    credentials: Credentials


class TooSlow(Exception):
    """The log was not consumed in time."""


async def open_drive_to_fill(system: System) -> FilledDrive:
    """Open a drive with its creators through the public API."""
    installation = system.installation
    slug = f"catchup-{time.time_ns()}"
    keys = read_json(installation.directory / "keys.json")
    async with new_session() as session:
        api = ApiClient(session, installation.gateway_url)
        credentials = await open_drive(api, keys, slug, slug)
        admin = {"Authorization": f"Bearer {keys['admin']}"}
        drive = (await api.get(f"/v1/drives/{slug}/totals")).body
        listed = (await api.get(f"/v1/drives/{slug}/creators?limit={len(CREATORS)}", admin)).body
        creators = [str(one["id"]) for one in listed["data"]]
        return FilledDrive(str(drive["drive"]), slug, creators, credentials)


async def fill(bus: EventBus, drive: FilledDrive, events: int) -> None:
    """Publish so many captured payments to a drive, each by a donor of its own."""
    zero = Money(0, "USD")
    now = datetime.now(UTC)
    for begin in range(0, events, BATCH):
        numbers = range(begin, min(begin + BATCH, events))
        await bus.publish([message_of(_payment(drive, number, now, zero)) for number in numbers], lossy=True)


def _payment(drive: FilledDrive, number: int, at: datetime, zero: Money) -> PaymentChanged:
    return PaymentChanged(
        payment_id=PaymentId(new("pay")),
        drive_id=DriveId(drive.drive_id),
        pledge_id=None,
        creator_id=CreatorId(drive.creator_ids[number % len(drive.creator_ids)]),
        donor_id=DonorId(new("dnr")),
        source=None,
        version=1,
        status=PaymentStatus.CAPTURED,
        held=False,
        captured=Money(500 + number % 10_000, "USD"),
        refunded=zero,
        disputed=zero,
        captured_at=at,
        changed_at=at,
    )


async def decoded_per_s(bus: EventBus, events: int) -> float:
    """Events a second that one process reads from the log and decodes, doing nothing with them."""
    subscription = await bus.follow(["payments"], "beginning")
    try:
        found, began = 0, time.perf_counter()
        async with asyncio.timeout(WITHIN_S):
            while found < events:
                for record in await subscription.fetch(500, 1.0):
                    found += bool(record.name) and decode(record.name, record.value) is not None
        return found / (time.perf_counter() - began)
    finally:
        await subscription.close()


def measure_embedded(data: Path, drive: FilledDrive, events: int, flames: Flames) -> Measured:
    """`catchup`: leaderboard alone in a process, on the bus and the database of an embedded run's data."""

    async def prepare() -> float:
        bus = SqliteBus(data / "bus.db")
        try:
            await fill(bus, drive, events)
            return await decoded_per_s(bus, events)
        finally:
            await bus.close()

    floor = run_on_uvloop(prepare())
    with child.running(
        "bench.single_service", "leaderboard", environment={"ATAA_DATA_DIR": str(data)}
    ) as leaderboard:
        address = f"http://127.0.0.1:{leaderboard.metrics_port}/metrics"
        with flames.of("catchup", {"leaderboard": leaderboard.pid}):
            per_s = consumed_per_s(lambda: handled(address), 0.0, events)
    return Measured("catchup", per_s, floor, {"events": events})


def measure_stack(system: System, drive: FilledDrive, events: int) -> Measured:
    """`catchup_stack`: the stack's leaderboard, suspended while the log is filled; the others run."""
    address = system.metrics["leaderboard"]

    async def fill_log() -> None:
        async with _kafka(system) as bus:
            await fill(bus, drive, events)

    async def decode_log() -> float:
        async with _kafka(system) as bus:
            return await decoded_per_s(bus, events)

    before = handled(address)
    with _suspended(system.processes["leaderboard"]):
        run_on_uvloop(fill_log())
    per_s = consumed_per_s(lambda: handled(address), before, events)
    floor = run_on_uvloop(decode_log())
    return Measured("catchup_stack", per_s, floor, {"events": events})


@asynccontextmanager
async def _kafka(system: System) -> AsyncIterator[EventBus]:
    from backbone.bus.kafka import KafkaBus

    bus = KafkaBus(f"127.0.0.1:{system.ports['kafka']}")
    try:
        yield bus
    finally:
        await bus.close()


@contextmanager
def _suspended(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def handled(address: str) -> float:
    """Events that leaderboard has handled since its start, by its metrics; 0 where it does not answer."""
    try:
        with urllib.request.urlopen(address, timeout=10) as response:  # noqa: S310 - our own http address
            text = response.read().decode()
    except OSError:
        return 0.0
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(_HANDLED)), 0.0)


def consumed_per_s(
    count: Callable[[], float],
    before: float,
    events: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Events a second until all `events` are handled; a start of up to 5 % of them is left out.

    Raises TooSlow.
    """
    began = clock()
    since = began, 0.0
    while clock() - began < WITHIN_S:
        # A busy process answers late, so each count belongs to the time of its answer.
        done, at = count() - before, clock()
        if done >= events:
            return (done - since[1]) / (at - since[0])
        if done <= events * _WARM_UP:
            since = at, max(done, 0.0)
        sleep(_POLL_S)
    raise TooSlow(f"{count() - before:.0f} of {events} events consumed in {WITHIN_S:.0f} s")
