"""Notify as a process of its own: `python -m services.notify`."""

from backbone.process import ListenAddress, run_process
from services.notify.app import compose
from services.notify.settings import NotifySettings

CONNECTIONS = 32
"""To pledges: requests are batched, so few run at a time."""

run_process(
    "notify",
    NotifySettings,
    lambda settings, bus, pools: compose(settings, bus, pools.to(settings.url_pledges, CONNECTIONS)),
    lambda settings: ListenAddress(settings.notify_port),
    ready_with_bus=True,
)
