"""`python -m bench.single_service NAME`: one service of the embedded run, alone in a process on its bus.

`gateway DRIVE FRAMES` serves the snapshots that an embedded run has left in `ATAA_DATA_DIR`. With FRAMES
above 0 it publishes that drive's newest snapshot so many times a second, each with a higher sequence:
milliseconds since 1970, so that a client knows when it was published. `leaderboard` consumes that bus. Both
print the ports of their API and of their metrics.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from backbone.bus.protocol import EventBus, Message, key_of_partition, partition_of
from backbone.bus.sqlite import SqliteBus
from backbone.contracts import Heartbeat, SnapshotTaken
from backbone.contracts.event import Event, decode
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.ids import new
from backbone.process import run_on_uvloop
from backbone.service import Service, Worker, listen, metrics_app, serve
from backbone.settings import Settings, load
from backbone.telemetry import configure_logs
from bench.child import announce

_SECRET: Final = SecretStr("0" * 64)
_HEARTBEAT_S: Final = 0.5
Kind = TypeVar("Kind", bound=Settings)


def message_of(event: Event) -> Message:
    """An event as a message of the bus."""
    return Message(event.topic, event.key, new("evt"), event.wire_name, event.to_bytes())


class SnapshotSource:
    """Publishes a drive's newest snapshot `frames_per_s` times a second, and its partition's heartbeats."""

    def __init__(self, bus: EventBus, drive: str, frames_per_s: float) -> None:
        self._bus = bus
        self._drive = drive
        self._frames_per_s = frames_per_s

    async def run(self, stop: asyncio.Event) -> None:
        """Publish until `stop`."""
        snapshot = await self._newest()
        partition = partition_of(snapshot.drive_id)
        slot = key_of_partition(partition)
        while not stop.is_set():
            now = datetime.now(UTC)
            events: list[Event] = [Heartbeat(slot=slot, partition=partition, as_of=now)]
            if self._frames_per_s:
                sequence = int(time.time() * 1000)
                events.append(snapshot.model_copy(update={"sequence": sequence, "as_of": now}))
            await self._bus.publish([message_of(event) for event in events], lossy=True)
            await asyncio.sleep(1 / self._frames_per_s if self._frames_per_s else _HEARTBEAT_S)

    async def _newest(self) -> SnapshotTaken:
        subscription = await self._bus.follow(["snapshots"], "beginning")
        found: SnapshotTaken | None = None
        try:
            while records := await subscription.fetch(1000, 0.2):
                for record in records:
                    event = decode(record.name, record.value) if record.name else None
                    if isinstance(event, SnapshotTaken) and event.slug == self._drive:
                        found = event
        finally:
            await subscription.close()
        if found is None:
            raise SystemExit(f"bench.single_service: no snapshot of {self._drive}")
        return found


def _gateway(bus: SqliteBus, drive: str, frames_per_s: float) -> Service:
    import gateway.app
    from gateway.settings import GatewaySettings

    clients = {name: InProcessServiceClient() for name in ("pledges", "payments", "leaderboard", "notify")}
    service = gateway.app.compose(_load(GatewaySettings), bus, clients)
    source = SnapshotSource(bus, drive, frames_per_s)
    service.workers = [*service.workers, Worker("bench.snapshots", source.run)]
    return service


def _leaderboard(bus: SqliteBus) -> Service:
    import services.leaderboard.app
    from services.leaderboard.settings import LeaderboardSettings

    return services.leaderboard.app.compose(_load(LeaderboardSettings), bus, _NoPledges())


class _NoPledges:
    """Stands for pledges, which knows no donor's texts."""

    async def request(self, method: str, path: str, **_: Any) -> ServiceResponse:
        """No texts."""
        return ServiceResponse(200, {}, json.dumps({"data": {}}).encode())


def _load(kind: type[Kind]) -> Kind:
    return load(kind, internal_secret=_SECRET)


def main(name: str, *arguments: str) -> None:
    """Run a service until it is ended."""
    settings = load(Settings)
    configure_logs("error", "console")
    bus = SqliteBus(settings.data_dir / "bus.db")
    match name:
        case "gateway":
            service = _gateway(bus, arguments[0], float(arguments[1]))
        case "leaderboard":
            service = _leaderboard(bus)
        case _:
            raise SystemExit(f"bench.single_service: no service {name}")
    run_on_uvloop(_serve(service, bus))


async def _serve(service: Service, bus: SqliteBus) -> None:
    sock, metrics = (listen("127.0.0.1", 0, "the bench's own port") for _ in range(2))
    closing = service.close

    async def close() -> None:
        await closing()
        await bus.close()

    service.close = close
    announce(sock.getsockname()[1], metrics.getsockname()[1])
    await serve([service], [(service.app, sock), (metrics_app, metrics)])


if __name__ == "__main__":
    main(*sys.argv[1:])
