"""A drive on the stack for fault tests: donors donate continuously, and two observers read the totals.

The processes are those of `make demo STACK=1`: five services, Kafka, PostgreSQL and the Stripe sandbox, which
the rehearsal's supervisor restarts.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import inspect
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from rehearsal.api_client import ApiClient, NoAnswer, new_session
from rehearsal.curve import gift_size
from rehearsal.donors import REFUND_WORKERS, Credentials, Donors, LoadProfile, Refused
from rehearsal.drive import open_drive
from rehearsal.freshness import Freshness
from rehearsal.gifts import DISPUTED_CARD, GOOD_CARD, Outcome, PlannedGift
from rehearsal.installation import DRIVE, Installation, prepare_installation
from rehearsal.live_stream import Frame, LiveStream
from rehearsal.proof import Auditor, Proof, Unreadable, settle
from rehearsal.stack_processes import StackProcesses, stack_processes
from rehearsal.supervisor import ProcessGroups, Supervisor
from tests.engines import free_port
from tests.stack.stack_command import need_engines

SERVICES: Final = ("pledges", "payments", "leaderboard", "notify", "gateway")
SESSION_S: Final = float(os.environ.get("ATAA_TEST_SESSION_S", "6"))
"""Kafka's session timeout (`ATAA_KAFKA_SESSION_S`, 10 by default), at its minimum."""

DONOR_EVERY_S: Final = 1.0
POLL_EVERY_S: Final = 0.25
LOG_POLL_S: Final = 0.5
RECOVERY_S: Final = 180.0
"""The limit of every wait for recovery, for a slow and busy machine."""

DONORS_AFTER_FAULT: Final = 2
"""How many donors must have donated after a fault before the system counts as healthy."""

Condition = Callable[[], bool | Awaitable[bool]]

_OUTCOMES: Final = {3: Outcome.REFUND, 5: Outcome.DISPUTE, 7: Outcome.PARTIAL_REFUND}
"""The outcomes of some of every ten donations."""


@dataclass(frozen=True, slots=True)
class Observation:
    """Totals as an observer received them, with the Unix times of the request and the reply."""

    asked_at: float
    seen_at: float
    epoch: int
    sequence: int
    state: str
    as_of: float

    @classmethod
    def of(cls, totals: Mapping[str, Any], asked_at: float) -> Observation:
        as_of = datetime.fromisoformat(totals["as_of"]).timestamp()
        state, epoch, sequence = str(totals["state"]), int(totals["epoch"]), int(totals["sequence"])
        return cls(asked_at, time.time(), epoch, sequence, state, as_of)


class Overlay(LiveStream):
    """Follows the live stream and records every frame."""

    def __init__(self, session: aiohttp.ClientSession, url: str, freshness: Freshness) -> None:
        super().__init__(session, url, freshness)
        self.observations: list[Observation] = []
        self.donations: list[int] = []
        """The sequence of each `donation` frame, in order of arrival."""

    def receive(self, frame: Frame) -> None:
        super().receive(frame)
        if frame.event == "totals":
            self.observations.append(Observation.of(self.totals, time.time()))
        elif frame.event == "donation" and frame.id is not None:
            self.donations.append(int(frame.id))


class Poller:
    """Reads the totals four times a second."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.observations: list[Observation] = []
        self._session = session
        self._url = url

    async def poll(self) -> None:
        """Read until cancelled; failures are ignored."""
        timeout = aiohttp.ClientTimeout(total=3.0)
        while True:
            asked_at = time.time()
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self._session.get(self._url, timeout=timeout) as reply:
                    if reply.status == 200:
                        self.observations.append(Observation.of(await reply.json(), asked_at))
            await asyncio.sleep(POLL_EVERY_S)


class Drive:
    """The drive `winter` on its stack, with donors and observers; see `running`."""

    def __init__(
        self, installation: Installation, process_groups: ProcessGroups, session: aiohttp.ClientSession
    ) -> None:
        self.freshness = Freshness()
        self.api = ApiClient(session, installation.gateway_url, retry_for_s=RECOVERY_S)
        totals = f"{installation.gateway_url}/v1/drives/{DRIVE}"
        self.overlay = Overlay(session, f"{totals}/live", self.freshness)
        self.poller = Poller(session, f"{totals}/totals")
        self.donors: Donors
        self.tasks: list[asyncio.Task[None]] = []
        """Background tasks of supervisor and observers; none ends by itself."""
        self._credentials: Credentials
        self._installation = installation
        self._session = session
        self._children = {child.name: child for group in process_groups.groups for child in group.children}
        self._auditor = Auditor(installation, session, self.freshness)
        self._active: set[asyncio.Task[None]] = set()
        self._lost: str | None = None
        self._arrived = 0
        self._working: list[asyncio.Task[None]] = []

    # Continuous activity.

    async def open(self) -> None:
        """Open the drive and start donors until `close`; returns when the first have donated."""
        keys = json.loads((self._installation.directory / "keys.json").read_text(encoding="utf-8"))
        self._credentials = await open_drive(self.api, keys, "faults", DRIVE)
        self.donors = Donors(
            self.api, DRIVE, self._credentials, LoadProfile(0.0, 0), paid_within_s=RECOVERY_S
        )
        tasks = [self._send_donors(), *(self.donors.process_refunds() for _ in range(REFUND_WORKERS))]
        self._working = [asyncio.create_task(work) for work in tasks]
        await self.wait_until_healthy()

    async def _send_donors(self) -> None:
        """Start a donor at a fixed interval, independent of the others."""
        while True:
            donor = asyncio.create_task(self._donate(_planned_gift(self._arrived)))
            self._arrived += 1
            self._active.add(donor)
            donor.add_done_callback(self._active.discard)
            await asyncio.sleep(DONOR_EVERY_S)

    async def close(self) -> None:
        """Start no more donors; wait for the last donations and refunds."""
        sending, *workers = self._working
        sending.cancel()
        await self.wait_until_healthy(more=0)
        self.donors.finish_refunds(len(workers))
        await asyncio.wait(workers, timeout=RECOVERY_S)

    async def abandon(self) -> None:
        """Cancel all tasks."""
        tasks = (*self._working, *self._active, *self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _donate(self, planned_gift: PlannedGift) -> None:
        try:
            await self.donors.donate(planned_gift)
        except (NoAnswer, Refused) as error:
            self.donors.tally.record_error(f"donation {planned_gift.number}: {error}")

    async def follow_log(self) -> None:
        """Read the log and the deliveries as they grow."""
        while True:
            with contextlib.suppress(Unreadable):
                await self._auditor.read_new()
            await asyncio.sleep(LOG_POLL_S)

    # Faults.

    def pid(self, name: str) -> int:
        """The current process id of `name`."""
        found = self._children[name].pid
        assert found is not None
        return found

    def send_signal(self, name: str, signal_number: int) -> int:
        """Send a signal to a process; returns its id."""
        pid = self.pid(name)
        os.kill(pid, signal_number)
        return pid

    def kill_with_children(self, name: str) -> None:
        """SIGKILL to a process and its children."""
        self.signal_with_children(name, signal.SIGKILL)

    def signal_with_children(self, name: str, signal_number: int) -> None:
        """Send a signal to a process and its children."""
        pid = self.pid(name)
        for one in (pid, *_children_of(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal_number)

    def log_bytes(self, name: str) -> int:
        """The current length of a process's log, for `logged_since`."""
        return self._log(name).stat().st_size

    def logged_since(self, name: str, start: int, text: str) -> bool:
        """Whether a process has written `text` to its log after the offset `start`."""
        with self._log(name).open("rb") as log:
            log.seek(start)
            return text.encode() in log.read()

    def _log(self, name: str) -> Path:
        return self._installation.directory / f"{name}.log"

    def setting(self, file: str, name: str) -> Any:
        """A value of one of the stack's files (`ports`, `secrets`)."""
        return json.loads((self._installation.directory / f"{file}.json").read_text(encoding="utf-8"))[name]

    def postgres_url(self) -> str:
        """The address of PostgreSQL, as superuser."""
        port, password = self.setting("ports", "postgres"), self.setting("secrets", "postgres")
        return f"postgresql://ataa:{password}@127.0.0.1:{port}/postgres"

    async def make_unpaid_pledge(self) -> tuple[int, float]:
        """Make a pledge without paying it; returns the status and the duration of the request in seconds."""
        began = time.monotonic()
        headers = {
            "Authorization": f"Bearer {self._credentials.secret}",
            "Idempotency-Key": f"unpaid-{began}",
        }
        url = f"{self._installation.gateway_url}/v1/drives/{DRIVE}/pledges"
        async with self._session.post(url, json={"amount": _money(2_500)}, headers=headers) as reply:
            return reply.status, time.monotonic() - began

    # Conditions after a fault.

    async def eventually(self, what: str, condition: Condition) -> None:
        """Wait until `condition` holds, checked ten times a second; fails with `what` after RECOVERY_S."""
        assert self._lost is None, f"never recovered from an earlier fault: {self._lost}"
        give_up = time.monotonic() + RECOVERY_S
        while not (found := condition()) or (inspect.isawaitable(found) and not await found):
            for work in self.tasks:
                if work.done():
                    work.result()
            if time.monotonic() > give_up:
                self._lost = what
                pytest.fail(f"not within {RECOVERY_S:.0f} s: {what}; {self._diagnosis()}")
            await asyncio.sleep(0.1)

    def _diagnosis(self) -> str:
        tally, last = self.donors.tally, self.poller.observations[-1:]
        return f"{len(self._active)} donors pending, {self.api.last_failure}, {tally.errors}, {last}"

    async def wait_until_healthy(self, more: int = DONORS_AFTER_FAULT) -> None:
        """Wait until all services are ready and all donations, and `more` new ones, are shown as live."""
        enough = self._arrived + more
        await self.eventually("every service is ready", self.ready)
        await self.eventually("donors are started", lambda: self._arrived >= enough)
        before = set(self._active)
        await self.eventually("every started donor has donated", lambda: not before & self._active)
        paid, counted = set(self.donors.tally.paid), self.freshness.counted
        await self.eventually("every donation is in the drive's log", lambda: paid <= counted.keys())
        last = max(counted[pledge] for pledge in paid)
        await self.eventually(f"every observer has {last} as live", lambda: self._shows(last))
        assert not self.donors.tally.errors

    def _shows(self, sequence: int) -> bool:
        newest = (self.poller.observations[-1], self.overlay.observations[-1])
        return all(one.sequence >= sequence and one.state == "live" for one in newest)

    async def ready(self) -> bool:
        """Whether all five services are ready."""
        return await self.count_ready() == len(SERVICES)

    async def count_ready(self) -> int:
        """How many of the five services are ready."""
        return sum(await asyncio.gather(*(self._answers(name) for name in SERVICES)))

    async def _answers(self, name: str) -> bool:
        timeout = aiohttp.ClientTimeout(total=2.0)
        try:
            async with self._session.get(self._children[name].probe, timeout=timeout) as reply:
                return reply.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def settle(self) -> Proof:
        """The proof, once the books are final."""
        pending: list[str] = []

        async def waiting(what: str) -> None:
            pending.append(what)

        proof = await settle(self._auditor, self.donors.tally, self.freshness, waiting, RECOVERY_S)
        assert proof.drained, f"never final: {pending[-1:]}"
        return proof

    def receipts(self) -> int:
        """How many receipts notify has written, one file each."""
        return sum(1 for _ in (self._installation.directory / "receipts").glob("*.eml"))

    def observers(self) -> Mapping[str, Sequence[Observation]]:
        """All observations, by observer."""
        return {"poll": self.poller.observations, "stream": self.overlay.observations}

    def false_claims(self) -> Iterator[str]:
        """Observations whose `as_of` is later than a donation that they do not include.

        A donation dates from the acknowledgement of its webhook: it was stored by then.
        """
        known = sorted(
            (at, self.freshness.counted[pledge])
            for pledge, at in self.freshness.acknowledged.items()
            if pledge in self.freshness.counted
        )
        times, highest = [at for at, _ in known], 0
        covered = [highest := max(highest, sequence) for _, sequence in known]
        for observer, observations in self.observers().items():
            for one in observations:
                place = bisect.bisect_left(times, one.as_of)
                if place and covered[place - 1] > one.sequence:
                    yield f"{observer}: {one} lacks {covered[place - 1]} of {times[place - 1]}"


@asynccontextmanager
async def running(data_dir: Path) -> AsyncIterator[Drive]:
    """A drive with donors until the block ends; a missing requirement skips the test."""
    need_engines(data_dir)
    extra_settings = {"ATAA_KAFKA_SESSION_S": str(SESSION_S)}
    with prepare_installation(data_dir, free_port(), free_port()) as installation:
        process_groups = _without_prometheus(
            stack_processes(installation, data_dir, None, print, extra_settings=extra_settings)
        )
        pids = installation.directory / "pids.json"
        async with new_session() as session, Supervisor(process_groups, pids, print) as supervisor:
            drive = Drive(installation, process_groups, session)
            tasks = (
                supervisor.keep_alive(),
                drive.overlay.follow(),
                drive.poller.poll(),
                drive.follow_log(),
            )
            drive.tasks = [asyncio.create_task(work) for work in tasks]
            try:
                await drive.open()
                yield drive
            finally:
                await drive.abandon()


def _without_prometheus(process_groups: ProcessGroups) -> StackProcesses:
    """These tests do not need it."""
    return StackProcesses(
        [
            replace(group, children=[child for child in group.children if child.name != "prometheus"])
            for group in process_groups.groups
        ]
    )


def _planned_gift(number: int) -> PlannedGift:
    """Planned donation number n, the same in each run."""
    rng = random.Random(number)  # noqa: S311 - a script, not a secret
    amount = max(500, gift_size(rng))
    outcome = _OUTCOMES.get(number % 10, Outcome.NOTHING)
    body = {"amount": _money(amount), "donor": {"email": f"donor-{number}@example.org", "locale": "en"}}
    cards = (DISPUTED_CARD,) if outcome is Outcome.DISPUTE else (GOOD_CARD,)
    return PlannedGift(
        number, f"faults-{number}", amount, body, cards, outcome, abandons=False, publishable=False
    )


def _money(cents: int) -> dict[str, str]:
    return {"currency": "USD", "value": f"{cents // 100}.{cents % 100:02d}"}


def _children_of(pid: int) -> list[int]:
    """The children of `pid` (proc(5))."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(status.read_text(errors="replace").rpartition(")")[2].split()[1]) == pid:
                found.append(int(status.parent.name))
    return found
