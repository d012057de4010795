"""The embedded system of one run: its nodes, its bus, its files and the Stripe sandbox."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from fastapi.routing import _extract_endpoint_context
from pydantic import SecretStr

import gateway.app
import services.leaderboard.app
import services.notify.app
import services.payments.app
import services.pledges.app
from backbone.bus.sqlite import SqliteBus
from backbone.http.service_client import InProcessServiceClient, ServiceClient
from backbone.messaging import outbox
from backbone.service import Service
from backbone.settings import load
from gateway.settings import GatewaySettings
from services.leaderboard.settings import LeaderboardSettings
from services.notify.settings import NotifySettings
from services.payments.settings import PaymentsSettings
from services.pledges.settings import PledgesSettings
from simulation import store
from simulation.bus import NodeBus
from simulation.faults import FaultPlan
from simulation.network import InProcessSandbox, NodeClient, SimulatedStripe, StripeTransport
from simulation.nodes import Node, Operations, create_task
from simulation.trace import Trace
from simulation.virtual_time import VirtualLoop

SERVICES: Final = ("pledges", "payments", "leaderboard", "notify")
NODES: Final = (*SERVICES, "gateway")
ADMIN_KEY: Final = "ak_admin_0123456789abcdefghij"
INTERNAL_SECRET: Final = "simulation-internal-secret-0123456789"  # noqa: S105 - of no installation
STRIPE_KEY: Final = "sk_test_simulation"
WEBHOOK_SECRET: Final = "whsec_simulation"  # noqa: S105 - of no installation
SPARE_SERVICES: Final = 3
"""Incarnations of each service composed in advance, because composing one takes longer than a seed."""

RELAY_POLL_S: Final = 1.0
"""How often a relay looks into its outbox unasked; 0.2 s in production, where it took a fifth of a run."""


@dataclass(slots=True)
class Run:
    """What one run has of its own."""

    plan: FaultPlan
    trace: Trace
    bus: SqliteBus
    sandbox: InProcessSandbox
    operations: Operations
    nodes: dict[str, Node] = field(default_factory=dict)


class System:
    """Composes services on `folder`; one run at a time is in progress."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._spare: dict[str, list[Service]] = {name: [] for name in NODES}
        self._run: Run | None = None
        self._stripe = StripeTransport(lambda: self.run.sandbox, lambda: self.run.operations)
        self._clients: dict[str, ServiceClient] = {name: self._client(name) for name in NODES}
        self._settings: Mapping[str, Any] = {
            "data_dir": folder,
            "database_synchronous": "OFF",
            "internal_secret": SecretStr(INTERNAL_SECRET),
            "token_secret": SecretStr("simulation-token-secret-0123456789"),
            "admin_key": SecretStr(ADMIN_KEY),
            "stripe_api_base": "http://sandbox.simulation",
            "stripe_api_key": SecretStr(STRIPE_KEY),
            "stripe_webhook_secrets": [WEBHOOK_SECRET],
            "stripe_backfill_s": 3.0,
            "stripe_sweep_s": 10.0,
            "stripe_settlement_s": 1.0,
        }
        roots = (
            services.pledges.app,
            services.payments.app,
            services.leaderboard.app,
            services.notify.app,
            gateway.app,
        )
        outbox.POLL_S = RELAY_POLL_S  # type: ignore[misc]
        store.install(roots, lambda: self.run.operations)

    @property
    def run(self) -> Run:
        """The run in progress."""
        assert self._run is not None
        return self._run

    def _client(self, name: str) -> NodeClient:
        return NodeClient(lambda: self.run.nodes[name], lambda: self.run.operations)

    async def compose_spares(self, number: int = SPARE_SERVICES) -> None:
        """Compose services in advance, and do what FastAPI would do at the first requests: build the routes,
        and read the endpoints' sources for its error messages.
        """
        for name, spare in self._spare.items():
            spare += [self._compose(name) for _ in range(number - len(spare))]
            for service in spare:
                await InProcessServiceClient(service.app).request("GET", "/internal/none", headers={})
                for route in getattr(service.app, "routes", ()):
                    _extract_endpoint_context(route.endpoint)

    def _take(self, name: str) -> Service:
        spare = self._spare[name]
        return spare.pop() if spare else self._compose(name)

    def _compose(self, name: str) -> Service:
        bus = NodeBus(lambda: self.run.bus, lambda: self.run.operations)
        pledges = self._clients["pledges"]
        match name:
            case "pledges":
                return services.pledges.app.compose(load(PledgesSettings, **self._settings), bus)
            case "payments":
                stripe = SimulatedStripe(STRIPE_KEY, self._stripe)
                settings = load(PaymentsSettings, **self._settings)
                return services.payments.app.compose(settings, bus, pledges, processor=stripe)
            case "leaderboard":
                leaderboard_settings = load(LeaderboardSettings, **self._settings)
                return services.leaderboard.app.compose(leaderboard_settings, bus, pledges)
            case "notify":
                return services.notify.app.compose(load(NotifySettings, **self._settings), bus, pledges)
        clients = {one: self._clients[one] for one in SERVICES}
        return gateway.app.compose(load(GatewaySettings, **self._settings), bus, clients)

    def begin(self, loop: VirtualLoop, seed: int, *, keep_trace: bool = False) -> Run:
        """Prepare a run on the files in `folder`; called in `loop`."""
        loop.set_task_factory(create_task)
        plan, trace = FaultPlan(seed), Trace(keep=keep_trace)
        operations = Operations(plan, trace)
        gateway_client = self._client("gateway")
        sandbox = InProcessSandbox(STRIPE_KEY, WEBHOOK_SECRET, gateway_client, lambda: operations)
        self._run = run = Run(plan, trace, self._open_bus(), sandbox, operations)
        run.nodes = {name: Node(name, partial(self._take, name), operations) for name in NODES}
        return run

    def _open_bus(self) -> SqliteBus:
        """It keeps replaced snapshots, as Kafka does for longer than a run: `NodeBus` repeats older ones."""
        return SqliteBus(self.folder / "bus.db", synchronous="OFF", compacted=frozenset())

    async def start(self) -> None:
        """Start the sandbox and all nodes."""
        await self.run.sandbox.start()
        await asyncio.gather(*(node.start() for node in self.run.nodes.values()))

    async def crash_all(self) -> None:
        """Crash all nodes and the bus at once, as the end of the embedded process does."""
        run = self.run
        run.trace.note("the whole system crashed")
        for node in run.nodes.values():
            node.crash()
        left = run.bus
        run.bus = self._open_bus()  # at once: one that crashed before may be starting
        await asyncio.sleep(0.01)
        await left.close()

    async def all_ready(self) -> None:
        """Wait until every node runs."""
        await asyncio.gather(*(node.wait_until_ready() for node in self.run.nodes.values()))

    def request_client(self, name: str) -> ServiceClient:
        """A client of a node, for requests from outside."""
        return self._clients[name]

    async def end(self) -> None:
        """Stop everything, so that another run can begin in this process."""
        run = self.run
        for node in run.nodes.values():
            if node.incarnation is not None:
                node.incarnation.kill()
        await asyncio.sleep(0.01)
        await run.bus.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        store.close_connections()
        self._run = None


def copy_files(source: Path, target: Path, names: Sequence[str]) -> None:
    """Replace the files of `target` by copies of those of `source`."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
