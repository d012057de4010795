"""Payments as a process of its own: `python -m services.payments`."""

from backbone.process import ListenAddress, run_process
from services.payments.app import compose
from services.payments.settings import PaymentsSettings

CONNECTIONS = 32
"""To pledges: requests are batched, so few run at a time."""

run_process(
    "payments",
    PaymentsSettings,
    lambda settings, bus, pools: compose(settings, bus, pools.to(settings.url_pledges, CONNECTIONS)),
    lambda settings: ListenAddress(settings.payments_port),
)
