"""How fresh the figures of each drive are, by its snapshots and the heartbeats of its partition."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from backbone.clock import Clock
from backbone.contracts import Heartbeat
from backbone.ids import created_at
from gateway.live.view import DriveView, State
from gateway.overload.ladder import Step

CATCHING_UP_AFTER_S: Final = 3.0
FROZEN_AFTER_S: Final = 5.0


class Freshness:
    """The newest heartbeat of each partition, and when it was received."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.step = Step.NOTHING
        """What gives way under overload, and is therefore missing in the figures."""
        self._heartbeats: dict[int, datetime] = {}
        self._received_at: dict[int, datetime] = {}
        self._began = clock.now()

    def give_way(self, step: Step) -> None:
        """Note the step of the shedding ladder."""
        self.step = step

    def receive(self, heartbeat: Heartbeat, *, bootstrapped: bool) -> None:
        """Note a heartbeat. Those read before the gateway is `bootstrapped` count as received when sent."""
        held = self._heartbeats.get(heartbeat.partition)
        if held is not None and heartbeat.as_of < held:
            return  # from a process that lost the partition: it does not show that the present owner lives
        self._heartbeats[heartbeat.partition] = heartbeat.as_of
        self._received_at[heartbeat.partition] = self.clock.now() if bootstrapped else heartbeat.as_of

    def as_of(self, view: DriveView) -> datetime:
        """The moment up to which everything is in the drive's figures.

        Without a snapshot it is the drive's creation: no gift is older.
        """
        if view.as_of is None:
            return created_at(view.drive_id)
        return max(view.as_of, self._heartbeats.get(view.partition, view.as_of))

    def state(self, view: DriveView) -> State:
        """Whether the drive's figures are live, late, or no longer updated."""
        now = self.clock.now()
        received = self._received_at.get(view.partition, self._began)
        if (now - received).total_seconds() > FROZEN_AFTER_S:
            return "frozen"
        # The zeros of a drive without a snapshot are not counted figures, however new the drive is.
        return "catching_up" if view.is_placeholder or self.lag_s(view, now) > CATCHING_UP_AFTER_S else "live"

    def lag_s(self, view: DriveView, now: datetime) -> float:
        """How far the drive's figures are behind `now`."""
        return (now - self.as_of(view)).total_seconds()
