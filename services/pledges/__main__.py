"""Runs pledges as its own process: `python -m services.pledges`."""

from backbone.process import ListenAddress, run_process
from services.pledges.app import compose
from services.pledges.settings import PledgesSettings

run_process(
    "pledges",
    PledgesSettings,
    lambda settings, bus, _pools: compose(settings, bus),
    lambda settings: ListenAddress(settings.pledges_port),
)
