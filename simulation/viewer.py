"""A viewer that polls a drive's totals, and what must hold for the totals that any viewer is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from backbone.http.service_client import ServiceUnavailable
from rehearsal.freshness import Freshness
from services.leaderboard.snapshots import HEARTBEAT_S
from simulation.system import System
from simulation.workload import DRIVE

SHOWN_S: Final = 3.0
"""A snapshot that the bus did not acknowledge in time is published again a second later."""
POLL_S: Final = 0.1
BACK_S: Final = HEARTBEAT_S + 1.0
"""How far `as_of` may go back from one process of the gateway to the next. Where leaderboard starts too, its
first snapshot replaces the one that stated a later moment, and the last heartbeat remains: one interval old,
or more where the bus refused one."""

Processes = tuple[int, int]
"""The numbers of the processes of gateway and leaderboard."""


class ShownTotals:
    """The totals that one viewer was shown, each compared with those before."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.seen: dict[int, str] = {}
        """The amount raised that was shown at each sequence."""
        self._newest: tuple[int, int, int] = (0, 0, 0)
        self._newest_by: Processes = (0, 0)
        """The processes of gateway and leaderboard when it was shown."""
        self._older_since: float | None = None
        self._shown = (0, 0, datetime.min.replace(tzinfo=UTC))
        """The last `as_of`, after its epoch and the process of the gateway that showed it."""
        self._latest = self._shown[2]
        """The latest `as_of` of this epoch."""

    def note(
        self, version: tuple[int, int, int], totals: Mapping[str, Any], by: Processes, now: float
    ) -> None:
        """Check totals of this (epoch, sequence, revision) that the gateway of `by` sent at `now`."""
        self.check_version(version, by, now)
        self.check_as_of(version[0], by[0], datetime.fromisoformat(totals["as_of"]))
        sequence, raised = version[1], totals["raised"]["value"]
        if self.seen.setdefault(sequence, raised) != raised:
            self.violations.append(f"two amounts at sequence {sequence}: {self.seen[sequence]} and {raised}")

    def check_version(self, version: tuple[int, int, int], by: Processes, now: float) -> None:
        """It never goes back, except for `SHOWN_S` after both gateway and leaderboard have started again.

        The last snapshot on the bus can be a repeated older one until leaderboard publishes its first.
        """
        if version >= self._newest:
            self._newest, self._newest_by, self._older_since = version, by, None
            return
        if self._older_since is None:
            self._older_since = now
        both_are_new = by[0] != self._newest_by[0] and by[1] != self._newest_by[1]
        if not both_are_new or now - self._older_since > SHOWN_S:
            self.violations.append(f"the totals went back from {self._newest} to {version}")

    def check_as_of(self, epoch: int, gateway: int, as_of: datetime) -> None:
        """It never goes back in one process of the gateway, and by `BACK_S` at most from one to the next."""
        before = self._shown
        self._shown = (epoch, gateway, as_of)
        if self._shown[:2] == before[:2] and as_of < before[2]:
            self.violations.append(f"as_of went back from {before[2]} to {as_of}")
        if epoch != before[0]:
            self._latest = as_of
        if (back_s := (self._latest - as_of).total_seconds()) > BACK_S:
            self.violations.append(f"a new gateway showed an as_of {back_s:.3f} s older than the latest")
        self._latest = max(as_of, self._latest)

    def differences(self, log: Mapping[int, str]) -> list[str]:
        """The amounts shown that are not those of the log, by sequence."""
        return [
            f"the totals showed {shown} at sequence {sequence}, the log says {log.get(sequence)}"
            for sequence, shown in self.seen.items()
            if log.get(sequence) != shown
        ]


def processes(system: System) -> Processes:
    """The present ones."""
    nodes = system.run.nodes
    return nodes["gateway"].ends, nodes["leaderboard"].ends


class Viewer:
    """Polls the totals as an overlay does."""

    def __init__(self, system: System, freshness: Freshness) -> None:
        self.shown = ShownTotals()
        self._system = system
        self._freshness = freshness

    async def watch(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Poll once."""
        client = self._system.request_client("gateway")
        try:
            reply = await client.request("GET", f"/v1/drives/{DRIVE}/totals", headers={})
        except ServiceUnavailable:
            return
        if reply.status != 200:
            return
        epoch, sequence, revision = map(int, reply.headers["etag"].split('"')[1].split(".")[:3])
        if sequence == 0:
            return  # no snapshot was received yet; `state` says so
        now = asyncio.get_running_loop().time()
        self.shown.note((epoch, sequence, revision), reply.json(), processes(self._system), now)
        self._freshness.note_frame(sequence, now)
