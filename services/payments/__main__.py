"""Payments as a process of its own: `python -m services.payments`."""

from backbone.process import ListenAddress, run_process
from services.payments.app import compose
from services.payments.settings import PaymentsSettings

CONNECTIONS = 32
"""To pledges: requests are batched, so few run at a time."""
AUDIT_CONNECTIONS = 4
"""To leaderboard: one audit at a time, and those that operators make."""

run_process(
    "payments",
    PaymentsSettings,
    lambda settings, bus, pools: compose(
        settings,
        bus,
        pools.to(settings.url_pledges, CONNECTIONS),
        leaderboard=pools.to(settings.url_leaderboard, AUDIT_CONNECTIONS),
    ),
    lambda settings: ListenAddress(settings.payments_port),
)
