"""Webhooks that payments stores a second on PostgreSQL, and how long Stripe waits for the answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench import child, own_postgres, single_figure
from bench.http_load import LoadReport, Order, send
from bench.results import Detail
from bench.steps import Steps

AIM_PER_S: Final = 1_500.0
AIM_P99_MS: Final = 100.0
CONNECTIONS: Final = 64
SECONDS: Final = 10.0
_SECRET: Final = "whsec_bench"  # noqa: S105 - the bench's own


def measure(folder: Path, _rows: int, steps: Steps) -> Mapping[str, Detail]:
    """`webhooks`: each is verified and durable before it is answered; the floor answers only."""
    with steps.step("webhooks", 2) as advance:
        with own_postgres.running(folder) as url:
            report = _load("intake", url, _SECRET)
        advance(1)
        floor = _load("floor")
        advance(1)
    details: dict[str, Detail] = {
        "p50_ms": report.p50_ms,
        "p99_ms": report.p99_ms,
        "aim_p99_ms": AIM_P99_MS,
        "connections": CONNECTIONS,
        "errors": report.errors,
        "first_error": report.first_error or None,
        "cores_server": report.cores["server"],
        "generator_share": report.generator_share,
        "floor_p99_ms": floor.p99_ms,
        "applied_meanwhile": False,
        "floor_is": "a raw ASGI application that reads the same requests and answers them",
    }
    return single_figure.of(
        "Webhooks stored on PostgreSQL", report.per_s, "1/s", AIM_PER_S, details, floor.per_s, more=True
    )


def _load(*server: str) -> LoadReport:
    with child.running("bench.webhook_servers", *server) as running:
        order = Order(
            running.port, "", CONNECTIONS, SECONDS, warm_up_s=1.0, processes={"server": running.pid}
        )
        return send(order, "bench.webhook_load", _SECRET)
