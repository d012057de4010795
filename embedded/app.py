"""Composition root of the embedded run: every service in one process, connected without sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from pydantic import SecretStr
from starlette.types import ASGIApp

import gateway.app
import services.leaderboard.app
import services.notify.app
import services.payments.app
import services.pledges.app
from backbone.bus.sqlite import PRUNE_EVERY_S, SqliteBus
from backbone.http.service_client import InProcessServiceClient
from backbone.periodic import pruning_worker
from backbone.service import Service, listen, metrics_app, serve
from backbone.settings import exit_with_error, load
from embedded.banner import Running, print_banner
from embedded.data_dir import DataDir
from embedded.sandbox import running_sandbox
from embedded.settings import EmbeddedSettings
from gateway.settings import GatewaySettings
from services.leaderboard.settings import LeaderboardSettings
from services.notify.settings import NotifySettings
from services.payments.settings import PaymentsSettings
from services.pledges.settings import PledgesSettings


@dataclass(frozen=True, slots=True)
class Embedded:
    """Everything of one embedded run, composed and not yet started."""

    gateway: Service
    services: Mapping[str, Service]
    bus: SqliteBus


def compose(folder: Path, given: Mapping[str, Any]) -> Embedded:
    """Wire the services to one bus and to each other; `given` settings win over the environment."""
    bus = SqliteBus(folder / "bus.db")
    peers = {name: InProcessServiceClient() for name in ("pledges", "payments", "leaderboard", "notify")}
    made = {
        "pledges": services.pledges.app.compose(load(PledgesSettings, **given), bus),
        "payments": services.payments.app.compose(load(PaymentsSettings, **given), bus, peers["pledges"]),
        "leaderboard": services.leaderboard.app.compose(
            load(LeaderboardSettings, **given), bus, peers["pledges"]
        ),
        "notify": services.notify.app.compose(load(NotifySettings, **given), bus, peers["pledges"]),
    }
    for name, service in made.items():
        peers[name].app = service.app
    door = gateway.app.compose(load(GatewaySettings, **given), bus, peers)
    return Embedded(door, made, bus)


async def run(settings: EmbeddedSettings) -> None:
    """Serve until SIGTERM or SIGINT; data is kept in the data directory."""
    data = DataDir(settings.data_dir)
    secrets = data.secrets()
    door_settings = load(GatewaySettings)
    door = listen(door_settings.gateway_host, door_settings.gateway_port, "ATAA_GATEWAY_PORT")
    port = door.getsockname()[1]
    keys = _admin_key(data, door_settings)
    stripe = _sandbox_settings(settings, secrets)
    if stripe and settings.sandbox_port == port:
        # Both could bind it; the one that listens first would have it, and the other say nothing.
        exit_with_error(f"ATAA_SANDBOX_PORT: port {port} is the gateway's already (ATAA_GATEWAY_PORT)")
    given = {
        "data_dir": data.path,
        "internal_secret": SecretStr(secrets["internal"]),
        "token_secret": SecretStr(secrets["token"]),
        "admin_key": SecretStr(keys["admin"]),
        **stripe,
    }
    whole = compose(data.path, given)
    sockets = {name: listen("127.0.0.1", 0, "the service's own port") for name in whole.services}
    sockets["metrics"] = listen("127.0.0.1", settings.metrics_port, "ATAA_METRICS_PORT")
    ports = {name: sock.getsockname()[1] for name, sock in sockets.items()}
    data.write("ports.json", {"gateway": port, "sandbox": settings.sandbox_port, **ports})
    apps = {name: service.app for name, service in whole.services.items()} | {"metrics": metrics_app}
    endpoints = [(whole.gateway.app, door), *((apps[name], sock) for name, sock in sockets.items())]
    house = Service(
        "embedded",
        metrics_app,
        [pruning_worker("embedded", {"bus": whole.bus.prune}, PRUNE_EVERY_S)],
        close=whole.bus.close,
    )
    running = Running(
        url=f"http://127.0.0.1:{port}",
        data=settings.data_dir,
        sandbox=f"http://127.0.0.1:{settings.sandbox_port}" if stripe else None,
        livemode=load(PaymentsSettings, **given).livemode,
    )

    async def greet() -> None:
        await _make_demo_key(data, keys, whole.gateway.app, port)
        print_banner(running)

    # Started last, when the door can be asked; `house` closes last, when nobody needs the bus.
    greeting = Service("keys", metrics_app, start=greet)
    async with AsyncExitStack() as stack:
        if stripe:
            url = f"http://127.0.0.1:{port}/webhooks/stripe"
            await stack.enter_async_context(
                running_sandbox(settings.sandbox_port, url, data.path / "sandbox.db", secrets)
            )
        await serve([house, *whole.services.values(), whole.gateway, greeting], endpoints)


def _sandbox_settings(settings: EmbeddedSettings, secrets: Mapping[str, str]) -> dict[str, Any]:
    """Settings that point payments at a sandbox of ours; none where a Stripe, real or not, is set."""
    found = load(PaymentsSettings)
    if found.stripe_api_key.get_secret_value() or found.stripe_api_base:
        return {}
    return {
        "stripe_api_base": f"http://127.0.0.1:{settings.sandbox_port}",
        "stripe_api_key": SecretStr(secrets["stripe_key"]),
        "stripe_webhook_secrets": [secrets["stripe_webhook"]],
    }


def _admin_key(data: DataDir, settings: GatewaySettings) -> dict[str, str]:
    """The keys of this directory with the installation's admin key: given, kept, or new."""
    kept = data.read("keys.json")
    given = settings.admin_key.get_secret_value()
    keys = {**kept, "admin": given or kept.get("admin") or f"ak_admin_{token_hex(20)}"}
    data.write("keys.json", keys)
    return keys


async def _make_demo_key(data: DataDir, keys: dict[str, str], door: ASGIApp, port: int) -> None:
    """Make the demo's publishable key once, as anyone would: through the public door."""
    if "publishable" in keys:
        return
    origins = [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
    body = json.dumps({"kind": "publishable", "name": "demo", "origins": origins}).encode()
    headers = {"authorization": f"Bearer {keys['admin']}", "content-type": "application/json"}
    reply = await InProcessServiceClient(door).request("POST", "/v1/keys", headers=headers, body=body)
    if reply.status != 201:
        raise RuntimeError(f"the demo's key could not be made: {reply.body.decode()}")
    keys["publishable"] = reply.json()["key"]
    data.write("keys.json", keys)
