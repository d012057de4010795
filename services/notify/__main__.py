"""Notify as a process of its own: `python -m services.notify`."""

from backbone.process import Place, run_alone
from services.notify.app import compose
from services.notify.settings import NotifySettings

CONNECTIONS = 32
"""To pledges: its questions are asked in batches, few at a time."""

run_alone(
    "notify",
    NotifySettings,
    lambda settings, bus, pools: compose(settings, bus, pools.to(settings.url_pledges, CONNECTIONS)),
    lambda settings: Place(settings.notify_port),
    ready_with_bus=True,
)
