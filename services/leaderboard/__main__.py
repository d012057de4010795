"""Run leaderboard as its own process: `python -m services.leaderboard`."""

from backbone.process import ListenAddress, run_process
from services.leaderboard.app import compose
from services.leaderboard.settings import LeaderboardSettings

CONNECTIONS = 32
"""HTTP connections to pledges. Display texts are requested in batches, few of them at the same time."""

run_process(
    "leaderboard",
    LeaderboardSettings,
    lambda settings, bus, pools: compose(settings, bus, pools.to(settings.url_pledges, CONNECTIONS)),
    lambda settings: ListenAddress(settings.leaderboard_port),
    ready_with_bus=True,
)
