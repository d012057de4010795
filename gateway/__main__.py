"""The gateway as a process of its own: `python -m gateway`."""

from backbone.bus import EventBus
from backbone.peer import PeerPools
from backbone.process import Place, run_alone
from backbone.service import Service
from gateway.app import compose
from gateway.peers import peers_of
from gateway.settings import GatewaySettings


def _compose(settings: GatewaySettings, bus: EventBus, pools: PeerPools) -> Service:
    return compose(settings, bus, peers_of(settings, pools))


run_alone(
    "gateway", GatewaySettings, _compose, lambda settings: Place(settings.gateway_port, settings.gateway_host)
)
