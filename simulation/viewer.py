"""A viewer that polls a drive's totals, and what must hold for the totals that any viewer is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from backbone.http.service_client import ServiceUnavailable
from rehearsal.freshness import Freshness
from simulation.system import System
from simulation.workload import DRIVE

SHOWN_S: Final = 3.0
"""A snapshot that the bus did not acknowledge in time is published again a second later."""
POLL_S: Final = 0.1


class ShownTotals:
    """The totals that one viewer was shown, each compared with those before."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.seen: dict[int, str] = {}
        """The amount raised that was shown at each sequence."""
        self._newest: tuple[int, int, int] = (0, 0, 0)
        self._latest: dict[int, datetime] = {}
        """The latest `as_of` of each epoch."""

    def note(self, version: tuple[int, int, int], totals: Mapping[str, Any]) -> None:
        """Check totals of this (epoch, sequence, revision)."""
        self.check_version(version)
        self.check_as_of(version[0], datetime.fromisoformat(totals["as_of"]))
        sequence, raised = version[1], totals["raised"]["value"]
        if self.seen.setdefault(sequence, raised) != raised:
            self.violations.append(f"two amounts at sequence {sequence}: {self.seen[sequence]} and {raised}")

    def check_version(self, version: tuple[int, int, int]) -> None:
        """It never goes back, from one process of the gateway to the next either."""
        if version < self._newest:
            self.violations.append(f"the totals went back from {self._newest} to {version}")
        self._newest = max(version, self._newest)

    def check_as_of(self, epoch: int, as_of: datetime) -> None:
        """It never goes back in an epoch, from one process of the gateway to the next either."""
        latest = self._latest.setdefault(epoch, as_of)
        if as_of < latest:
            self.violations.append(f"as_of went back from {latest} to {as_of}")
        self._latest[epoch] = max(as_of, latest)

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
        self.shown.note((epoch, sequence, revision), reply.json())
        self._freshness.note_frame(sequence, asyncio.get_running_loop().time())
