"""The events between services, one module per producer.

The wire name of an event never changes, even when its class is renamed. Frozen examples of every version are
in `tests/contracts/examples/`; every later version must decode them.
"""

from backbone.contracts.event import Event, MoneyField, decode, wire_names
from backbone.contracts.leaderboard import DriveLogged, Heartbeat, SnapshotTaken
from backbone.contracts.payments import ExchangeRateSet, MatchingPoolChanged, PaymentChanged, PaymentStatus
from backbone.contracts.pledges import (
    AlertControl,
    AlertsControlled,
    CreatorChanged,
    DriveChanged,
    DriveState,
    MessageModerated,
    PledgeChanged,
    PledgeMade,
    PledgeStatus,
)

__all__ = [
    "AlertControl",
    "AlertsControlled",
    "CreatorChanged",
    "DriveChanged",
    "DriveLogged",
    "DriveState",
    "Event",
    "ExchangeRateSet",
    "Heartbeat",
    "MatchingPoolChanged",
    "MessageModerated",
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
