"""Run the gateway as its own process: `python -m gateway`."""

from backbone.bus.protocol import EventBus
from backbone.http.service_client import ServiceClientPools
from backbone.process import ListenAddress, run_process
from backbone.service import Service
from gateway.app import compose
from gateway.service_clients import service_clients_of
from gateway.settings import GatewaySettings


def _compose(settings: GatewaySettings, bus: EventBus, pools: ServiceClientPools) -> Service:
    return compose(settings, bus, service_clients_of(settings, pools))


run_process(
    "gateway",
    GatewaySettings,
    _compose,
    lambda settings: ListenAddress(settings.gateway_port, settings.gateway_host),
)
