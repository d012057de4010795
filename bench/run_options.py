"""How long and how much a run measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

NOT_QUICK: Final = "not in the quick run"
"""Why a quick run skips a figure or an engine."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Durations in seconds and sizes; `donors` are in flight at saturation.

    `rivals`: whether `fanout` measures other engines too.
    """

    mode: str
    donors: int
    donations_s: float
    freshness_s: float
    hop_s: float
    floor_s: float
    reads_s: float
    read_connections: int
    intake_s: float
    intake_connections: int
    fanout_clients: int
    fanout_s: float
    rivals: bool
    frames_per_s: float
    catchup_events: int
    growth_s: float
    stored: int
    memory_s: float


FULL: Final = RunOptions(
    mode="full",
    donors=160,
    donations_s=60.0,
    freshness_s=16.0,
    hop_s=5.0,
    floor_s=4.0,
    reads_s=5.0,
    read_connections=64,
    intake_s=7.0,
    intake_connections=128,
    fanout_clients=10_000,
    fanout_s=10.0,
    rivals=True,
    frames_per_s=4.0,
    catchup_events=100_000,
    growth_s=9.0,
    stored=1_000_000,
    memory_s=10.0,
)
QUICK: Final = RunOptions(
    mode="quick",
    donors=160,
    donations_s=7.0,
    freshness_s=5.0,
    hop_s=1.5,
    floor_s=2.0,
    reads_s=1.5,
    read_connections=64,
    intake_s=2.0,
    intake_connections=128,
    fanout_clients=1_000,
    fanout_s=2.0,
    rivals=False,
    frames_per_s=4.0,
    catchup_events=10_000,
    growth_s=8.0,
    stored=50_000,
    memory_s=6.0,
)
