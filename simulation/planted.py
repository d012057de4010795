"""Bugs of the kinds that a simulation has to find, planted on demand to show that it finds them.

Each is a mistake that such a system is known for, made in the product's own code for the rest of the process.
Nothing imports this but the simulation's worker, and nothing but its `--planted` switches a bug on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from backbone.bus.protocol import BusUnavailable, Message, Record
from backbone.contracts import PaymentChanged, SnapshotTaken
from backbone.database.transaction import Transaction
from backbone.messaging import inbox, outbox
from gateway.live.connection import SseConnection
from gateway.live.hub import Hub
from services.leaderboard import domain, tally
from simulation.bus import NodeBus
from simulation.campaign import Bug


def lose_acknowledgements() -> None:
    """Relays take a failed publish for a successful one, and delete the rows."""

    class CarelessBus:
        def __init__(self, bus: NodeBus) -> None:
            self._bus = bus

        async def publish(self, messages: Sequence[Message], *, lossy: bool = False) -> None:
            try:
                await self._bus.publish(messages, lossy=lossy)
            except BusUnavailable:
                return

        def __getattr__(self, name: str) -> Any:
            return getattr(self._bus, name)

    publish_batch = outbox.Relay._publish_batch

    async def publish_carelessly(self: outbox.Relay) -> int:
        if not isinstance(self._bus, CarelessBus):
            self._bus = CarelessBus(self._bus)  # type: ignore[arg-type]
        return await publish_batch(self)

    outbox.Relay._publish_batch = publish_carelessly  # type: ignore[method-assign]


def apply_twice() -> None:
    """Consumers do not recognize repeated events, and leaderboard adds a repeated state once more."""
    _forget_events()

    def read(old: Any, event: PaymentChanged) -> Any:
        return None if old is not None and old.version == event.version else old

    _replace_tally(read)


def accept_older_versions() -> None:
    """Leaderboard takes the state that arrives last for the newest."""

    def read(old: Any, event: PaymentChanged) -> Any:
        return old

    _replace_tally(read)
    domain.newest = _last  # type: ignore[assignment]


def show_stale_snapshots() -> None:
    """Gateways show the snapshot that arrives last, however old it is."""
    take = Hub._take

    def take_any(self: Hub, snapshot: SnapshotTaken, as_of: datetime) -> None:
        view = self._views.get(snapshot.drive_id)
        if view is not None:
            view.snapshot_version, view.as_of = (0, 0, 0), None
        take(self, snapshot, as_of)

    Hub._take = take_any  # type: ignore[method-assign]


def lose_frames() -> None:
    """Gateways drop the rows of a stream whose client does not read, and do not tell it of a gap."""
    queue = SseConnection._queue

    def queue_for_readers(self: SseConnection, shown: bytes) -> None:
        if not self._response.is_paused:
            queue(self, shown)

    SseConnection._queue = queue_for_readers  # type: ignore[method-assign]


BUGS: Final[dict[Bug, Callable[[], None]]] = {
    Bug.LOST_ACK: lose_acknowledgements,
    Bug.DOUBLE_APPLY: apply_twice,
    Bug.REORDERED_VERSION: accept_older_versions,
    Bug.STALE_READ: show_stale_snapshots,
    Bug.LOST_FRAME: lose_frames,
}


def _forget_events() -> None:
    async def record_none(session: Transaction, group: str, records: Sequence[Record]) -> list[Record]:
        return list({record.id: record for record in records}.values())

    inbox.record_new = record_none


class _Versionless:
    """A stored payment that is older than any event."""

    version = -1

    def __init__(self, row: Any) -> None:
        self._row = row

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


def _replace_tally(read: Callable[[Any, PaymentChanged], Any]) -> None:
    """Have `_tally` see `read(old, event)` as the stored payment, and refuse no event for its version."""
    apply = tally._tally

    def apply_any(event: PaymentChanged, old: Any, locked: Any, batch: Any) -> Any:
        seen: Any = read(old, event)
        stored: Any = None if seen is None else _Versionless(seen)
        return apply(event, stored, locked, batch)

    tally._tally = apply_any


def _last(events: Sequence[Any], key: Callable[[Any], str]) -> list[Any]:
    return list({key(event): event for event in events}.values())
