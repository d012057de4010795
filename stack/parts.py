"""What a stack consists of: each part's command, settings, question for readiness, and way to end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stack.layout import HOST, Layout
from stack.settings import SERVICES

ENGINES: Final = ("postgres", "kafka", "prometheus")
KEEPER: Final = "keeper"
ORDER: Final = (*ENGINES, "sandbox", *SERVICES, KEEPER)
"""Engines first; the end comes in the opposite order."""

_MODULES: Final = {name: name if name == "gateway" else f"services.{name}" for name in SERVICES}


@dataclass(frozen=True, slots=True)
class Part:
    """One process. `probe`: an http:// address that answers 200 once ready, or a tcp:// one that connects.

    The keeper has none: nobody asks it anything.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    probe: str
    stop_signal: int = signal.SIGTERM


def engine(name: str, layout: Layout) -> Part:
    """Kafka, PostgreSQL or Prometheus: `python -m stack serve` prepares it and becomes it."""
    command = (sys.executable, "-m", "stack", "serve", name, "--directory", str(layout.directory))
    environment = {**os.environ, "ATAA_DATA_DIR": str(layout.data_dir)}
    probe = {
        "prometheus": f"{layout.url('prometheus')}/-/ready",
    }.get(name, f"tcp://{HOST}:{layout.ports[name]}")
    # PostgreSQL's SIGTERM waits for every client to leave; SIGINT is its fast shutdown.
    return Part(name, command, environment, probe, signal.SIGINT if name == "postgres" else signal.SIGTERM)


def sandbox(layout: Layout) -> Part:
    """The Stripe sandbox, which sends its webhooks to the gateway."""
    command = (
        *(sys.executable, "-m", "sandbox", "--port", str(layout.ports["sandbox"])),
        *("--webhook-url", f"{layout.url('gateway')}/webhooks/stripe"),
        *("--data", str(layout.directory / "sandbox.db")),
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")} | {
        "ATAA_STRIPE_API_KEY": layout.secrets["stripe_key"],
        "ATAA_STRIPE_WEBHOOK_SECRETS": layout.secrets["stripe_webhook"],
    }
    return Part("sandbox", command, environment, f"{layout.url('sandbox')}/livez")


def service(name: str, layout: Layout, given: Mapping[str, str], *, sandbox: bool) -> Part:
    """One of the five, told where everything is; `given` is the environment it is added to."""
    ports = layout.ports
    told = {
        "ATAA_DATA_DIR": str(layout.directory),
        "ATAA_INTERNAL_SECRET": layout.secrets["internal"],
        "ATAA_TOKEN_SECRET": layout.secrets["token"],
        "ATAA_ADMIN_KEY": layout.secrets["admin"],
        "ATAA_KAFKA_BOOTSTRAP": layout.kafka,
        "ATAA_METRICS_PORT": str(ports[f"metrics_{name}"]),
        f"ATAA_DATABASE_URL_{name.upper()}": layout.databases[name],
        **{f"ATAA_{one.upper()}_PORT": str(ports[one]) for one in SERVICES},
        **{f"ATAA_URL_{one.upper()}": layout.url(one) for one in SERVICES if one != "gateway"},
    }
    if sandbox:
        told |= {
            "ATAA_STRIPE_API_BASE": layout.url("sandbox"),
            "ATAA_STRIPE_API_KEY": layout.secrets["stripe_key"],
            "ATAA_STRIPE_WEBHOOK_SECRETS": layout.secrets["stripe_webhook"],
        }
    command = (sys.executable, "-m", _MODULES[name])
    return Part(name, command, {**given, **told}, f"{layout.url(name)}/readyz")


def keeper(layout: Layout) -> Part:
    """Whoever starts again what died: with the environment that `up` was given."""
    environment = {**os.environ, "ATAA_DATA_DIR": str(layout.data_dir)}
    return Part(KEEPER, (sys.executable, "-m", "stack", "keep"), environment, "")
