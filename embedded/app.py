"""Composition root of the embedded run: all services in one process, connected without sockets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

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
from gateway.transparency.note_keys import new_signer
from services.leaderboard.settings import LeaderboardSettings
from services.notify.settings import NotifySettings
from services.payments.settings import PaymentsSettings
from services.pledges.settings import PledgesSettings


@dataclass(frozen=True, slots=True)
class Embedded:
    """The services and the bus of an embedded run, composed but not started."""

    gateway: Service
    services: Mapping[str, Service]
    bus: SqliteBus


def compose(folder: Path, overrides: Mapping[str, Any]) -> Embedded:
    """Wire the services to one bus and to each other; `overrides` take precedence over the environment."""
    bus = SqliteBus(folder / "bus.db")
    clients = {name: InProcessServiceClient() for name in ("pledges", "payments", "leaderboard", "notify")}
    composed = {
        "pledges": services.pledges.app.compose(load(PledgesSettings, **overrides), bus),
        "payments": services.payments.app.compose(
            load(PaymentsSettings, **overrides), bus, clients["pledges"], leaderboard=clients["leaderboard"]
        ),
        "leaderboard": services.leaderboard.app.compose(
            load(LeaderboardSettings, **overrides), bus, clients["pledges"]
        ),
        "notify": services.notify.app.compose(load(NotifySettings, **overrides), bus, clients["pledges"]),
    }
    for name, service in composed.items():
        clients[name].app = service.app
    front = gateway.app.compose(load(GatewaySettings, **overrides), bus, clients)
    return Embedded(front, composed, bus)


async def run(settings: EmbeddedSettings) -> None:
    """Serve until SIGTERM or SIGINT; data is kept in the data directory."""
    data = DataDir(settings.data_dir)
    secrets = data.secrets()
    gateway_settings = load(GatewaySettings)
    gateway_socket = listen(gateway_settings.gateway_host, gateway_settings.gateway_port, "ATAA_GATEWAY_PORT")
    port = gateway_socket.getsockname()[1]
    keys = _admin_key(data, gateway_settings)
    stripe = _sandbox_settings(settings, secrets)
    if stripe and settings.sandbox_port == port:
        # With SO_REUSEPORT both could bind the port, and one would get no requests without an error.
        exit_with_error(f"ATAA_SANDBOX_PORT: port {port} is also the gateway's (ATAA_GATEWAY_PORT)")
    overrides = {
        "data_dir": data.path,
        "internal_secret": SecretStr(secrets["internal"]),
        "token_secret": SecretStr(secrets["token"]),
        "admin_key": SecretStr(keys["admin"]),
        "log_key": SecretStr(_log_key(data, gateway_settings)),
        **stripe,
    }
    embedded = compose(data.path, overrides)
    sockets = {name: listen("127.0.0.1", 0, "the service's own port") for name in embedded.services}
    sockets["metrics"] = listen("127.0.0.1", settings.metrics_port, "ATAA_METRICS_PORT")
    ports = {name: sock.getsockname()[1] for name, sock in sockets.items()}
    data.write("ports.json", {"gateway": port, "sandbox": settings.sandbox_port, **ports})
    apps = {name: service.app for name, service in embedded.services.items()} | {"metrics": metrics_app}
    endpoints = [
        (embedded.gateway.app, gateway_socket),
        *((apps[name], sock) for name, sock in sockets.items()),
    ]
    bus_service = Service(
        "embedded",
        metrics_app,
        [pruning_worker("embedded", {"bus": embedded.bus.prune}, PRUNE_EVERY_S)],
        close=embedded.bus.close,
    )
    running = Running(
        url=f"http://127.0.0.1:{port}",
        data=settings.data_dir,
        sandbox=f"http://127.0.0.1:{settings.sandbox_port}" if stripe else None,
        livemode=load(PaymentsSettings, **overrides).livemode,
    )

    async def announce() -> None:
        await _make_demo_key(data, keys, embedded.gateway.app, port)
        print_banner(running)

    # Started last, when the API is available; `bus_service` stops last, when no service needs the bus.
    announcement = Service("keys", metrics_app, start=announce)
    async with AsyncExitStack() as stack:
        if stripe:
            url = f"http://127.0.0.1:{port}/webhooks/stripe"
            await stack.enter_async_context(
                running_sandbox(settings.sandbox_port, url, data.path / "sandbox.db", secrets)
            )
        await serve([bus_service, *embedded.services.values(), embedded.gateway, announcement], endpoints)


def _sandbox_settings(settings: EmbeddedSettings, secrets: Mapping[str, str]) -> dict[str, Any]:
    """The settings that point payments at the sandbox; empty where a Stripe account or address is set."""
    found = load(PaymentsSettings)
    if found.stripe_api_key.get_secret_value() or found.stripe_api_base:
        return {}
    return {
        "stripe_api_base": f"http://127.0.0.1:{settings.sandbox_port}",
        "stripe_api_key": SecretStr(secrets["stripe_key"]),
        "stripe_webhook_secrets": [secrets["stripe_webhook"]],
    }


def _log_key(data: DataDir, settings: GatewaySettings) -> str:
    """The key of the public logs: set, stored, or new and named after the public address."""

    def new() -> str:
        # The name of a key begins with a letter or digit, so an IPv6 address gets a prefix for its brackets.
        host = urlsplit(settings.public_url).netloc.replace("[", "ipv6-").replace("]", "")
        return new_signer(host or f"localhost/{token_hex(4)}").encode()

    return settings.log_key.get_secret_value() or data.log_key(new)


def _admin_key(data: DataDir, settings: GatewaySettings) -> dict[str, str]:
    """The content of keys.json, with the admin key: set, stored, or new."""
    kept = data.read("keys.json")
    given = settings.admin_key.get_secret_value()
    keys = {**kept, "admin": given or kept.get("admin") or f"ak_admin_{token_hex(20)}"}
    data.write("keys.json", keys)
    return keys


async def _make_demo_key(data: DataDir, keys: dict[str, str], api: ASGIApp, port: int) -> None:
    """Create the demo's publishable key through the public API, once."""
    if "publishable" in keys:
        return
    origins = [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
    body = json.dumps({"kind": "publishable", "name": "demo", "origins": origins}).encode()
    headers = {"authorization": f"Bearer {keys['admin']}", "content-type": "application/json"}
    reply = await InProcessServiceClient(api).request("POST", "/v1/keys", headers=headers, body=body)
    if reply.status != 201:
        raise RuntimeError(f"the demo's publishable key could not be created: {reply.body.decode()}")
    keys["publishable"] = reply.json()["key"]
    data.write("keys.json", keys)
