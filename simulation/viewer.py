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


class ShownTotals:
    """The totals that one viewer was shown, each compared with those before."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.seen: dict[int, str] = {}
        """The amount raised that was shown at each sequence."""
        self._newest: tuple[int, int, int] = (0, 0, 0)
        self._shown = (0, 0, datetime.min.replace(tzinfo=UTC))
        """The last `as_of`, after its epoch and the process of the gateway that showed it."""
        self._latest = self._shown[2]
        """The latest `as_of` of this epoch."""

    def note(self, version: tuple[int, int, int], totals: Mapping[str, Any], gateway: int) -> None:
        """Check totals of this (epoch, sequence, revision) that this process of the gateway sent."""
        self.check_version(version)
        self.check_as_of(version[0], gateway, datetime.fromisoformat(totals["as_of"]))
        sequence, raised = version[1], totals["raised"]["value"]
        if self.seen.setdefault(sequence, raised) != raised:
            self.violations.append(f"two amounts at sequence {sequence}: {self.seen[sequence]} and {raised}")

    def check_version(self, version: tuple[int, int, int]) -> None:
        """It never goes back, from one process of the gateway to the next either."""
        if version < self._newest:
            self.violations.append(f"the totals went back from {self._newest} to {version}")
        self._newest = max(version, self._newest)

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
        self.shown.note((epoch, sequence, revision), reply.json(), self._system.run.nodes["gateway"].ends)
        self._freshness.note_frame(sequence, asyncio.get_running_loop().time())
