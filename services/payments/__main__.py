"""Payments as a process of its own: `python -m services.payments`."""

from backbone.process import Place, run_alone
from services.payments.app import compose
from services.payments.settings import PaymentsSettings

CONNECTIONS = 32
"""To pledges: its questions are asked in batches, few at a time."""

run_alone(
    "payments",
    PaymentsSettings,
    lambda settings, bus, pools: compose(settings, bus, pools.to(settings.url_pledges, CONNECTIONS)),
    lambda settings: Place(settings.payments_port),
)
