"""Pledges as a process of its own: `python -m services.pledges`."""

from backbone.process import Place, run_alone
from services.pledges.app import compose
from services.pledges.settings import PledgesSettings

run_alone(
    "pledges",
    PledgesSettings,
    lambda settings, bus, _pools: compose(settings, bus),
    lambda settings: Place(settings.pledges_port),
)
