"""The processes of a stack: command, environment, readiness probe and stop signal of each."""

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
SUPERVISOR: Final = "supervisor"
ORDER: Final = (*ENGINES, "sandbox", *SERVICES, SUPERVISOR)
"""The starting order; processes stop in reverse."""

_MODULES: Final = {name: name if name == "gateway" else f"services.{name}" for name in SERVICES}


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process; `probe` is as for `stack.probes.is_ready`, empty for the supervisor, which has none."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    probe: str
    stop_signal: int = signal.SIGTERM


def engine(name: str, layout: Layout) -> ProcessSpec:
    """Kafka, PostgreSQL or Prometheus: `python -m stack serve` prepares it and is replaced by it."""
    command = (sys.executable, "-m", "stack", "serve", name, "--directory", str(layout.directory))
    environment = {**os.environ, "ATAA_DATA_DIR": str(layout.data_dir)}
    probe = {
        "prometheus": f"{layout.url('prometheus')}/-/ready",
    }.get(name, f"tcp://{HOST}:{layout.ports[name]}")
    # On SIGTERM PostgreSQL waits for its clients to disconnect; SIGINT is the fast shutdown.
    return ProcessSpec(
        name, command, environment, probe, signal.SIGINT if name == "postgres" else signal.SIGTERM
    )


def sandbox(layout: Layout) -> ProcessSpec:
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
    return ProcessSpec("sandbox", command, environment, f"{layout.url('sandbox')}/livez")


def service(name: str, layout: Layout, given: Mapping[str, str], *, sandbox: bool) -> ProcessSpec:
    """One of the five services; the layout's settings are added to the environment `given`."""
    ports = layout.ports
    own = {
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
    if name == "gateway" and not given.get("ATAA_LOG_KEY"):
        own["ATAA_LOG_KEY"] = layout.secrets["log_key"]
    if sandbox:
        own |= {
            "ATAA_STRIPE_API_BASE": layout.url("sandbox"),
            "ATAA_STRIPE_API_KEY": layout.secrets["stripe_key"],
            "ATAA_STRIPE_WEBHOOK_SECRETS": layout.secrets["stripe_webhook"],
        }
    command = (sys.executable, "-m", _MODULES[name])
    return ProcessSpec(name, command, {**given, **own}, f"{layout.url(name)}/readyz")


def supervisor(layout: Layout) -> ProcessSpec:
    """The supervisor, with the environment of `up`."""
    environment = {**os.environ, "ATAA_DATA_DIR": str(layout.data_dir)}
    return ProcessSpec(SUPERVISOR, (sys.executable, "-m", "stack", "supervise"), environment, "")
