"""The events the services say to each other, one module per speaker.

An event's wire name is fixed for ever; renaming a class never renames the wire. Frozen examples of
every version live in `tests/contracts/examples/` and must decode for ever.
"""

from backbone.contracts.event import Event, MoneyField, decode, wire_names
from backbone.contracts.leaderboard import DriveLogged, Heartbeat, SnapshotTaken
from backbone.contracts.payments import PaymentChanged, PaymentStatus
from backbone.contracts.pledges import (
    CreatorChanged,
    DriveChanged,
    DriveState,
    PledgeChanged,
    PledgeMade,
    PledgeStatus,
)

__all__ = [
    "CreatorChanged",
    "DriveChanged",
    "DriveLogged",
    "DriveState",
    "Event",
    "Heartbeat",
    "MoneyField",
    "PaymentChanged",
    "PaymentStatus",
    "PledgeChanged",
    "PledgeMade",
    "PledgeStatus",
    "SnapshotTaken",
    "decode",
    "wire_names",
]
