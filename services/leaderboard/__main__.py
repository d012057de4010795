"""Leaderboard as a process of its own: `python -m services.leaderboard`."""

from backbone.process import Place, run_alone
from services.leaderboard.app import compose
from services.leaderboard.settings import LeaderboardSettings

CONNECTIONS = 32
"""To pledges: its questions are asked in batches, few at a time."""

run_alone(
    "leaderboard",
    LeaderboardSettings,
    lambda settings, bus, pools: compose(settings, bus, pools.to(settings.url_pledges, CONNECTIONS)),
    lambda settings: Place(settings.leaderboard_port),
    ready_with_bus=True,
)
