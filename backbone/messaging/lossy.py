"""Events published directly, without the outbox: they may be lost, and newer ones replace them."""

from __future__ import annotations

from collections.abc import Sequence

from backbone import ids
from backbone.bus.protocol import EventBus, Message
from backbone.contracts.event import Event


async def publish_lossy(bus: EventBus, events: Sequence[Event]) -> None:
    """Publish `events` in their order. Raises `BusUnavailable`."""
    await bus.publish([message_of(event) for event in events], lossy=True)


def message_of(event: Event) -> Message:
    """The message that carries `event`, under a new id."""
    return Message(event.topic, event.key, ids.new("evt"), event.wire_name, event.to_bytes())
