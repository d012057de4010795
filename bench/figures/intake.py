"""Pledges a second through gateway and pledges, while the other services work on them."""

from __future__ import annotations

import time
from collections.abc import Mapping

from bench import child
from bench.event_loop import run_on_uvloop
from bench.http_load import LoadReport, Order, post, send
from bench.results import Measured
from bench.run_options import RunOptions
from bench.systems import System
from rehearsal.amounts import as_money
from rehearsal.api_client import ApiClient, new_session
from rehearsal.donors import Credentials
from rehearsal.drive import open_drive
from stack.layout import read_json

BODY = {
    "amount": as_money(2_500),
    "creator": "noor-live",
    "donor": {"name": "Amal Haddad", "email": "donor-{number}@example.org", "locale": "en"},
    "message": "Stay warm!",
    "source": {"platform": "youtube", "campaign": "winter-stream"},
    "reference": "bench-{number}",
}
"""An ordinary pledge, by another donor each time."""


def measure(system: System, options: RunOptions, floor: LoadReport) -> Measured:
    """`intake` or `intake_stack`; each pledge has a key and a donor of its own."""
    run = f"intake-{time.time_ns()}"
    entry = run_on_uvloop(open_new_drive(system, run))
    names = ("embedded",) if system.name == "embedded" else ("gateway", "pledges")
    processes = {name: system.processes[name] for name in names}
    report = send(
        order_of(
            system.installation.gateway_port, run, run, entry.secret,
            options.intake_connections, options.intake_s, processes,
        )
    )  # fmt: skip
    return Measured(
        "intake" if system.name == "embedded" else "intake_stack",
        report.per_s,
        floor.per_s,
        {
            "p50_ms": report.p50_ms,
            "p99_ms": report.p99_ms,
            "aim_p99_ms": 250,
            "connections": options.intake_connections,
            "errors": report.errors,
            "first_error": report.first_error or None,
            **{f"cores_{name}": cores for name, cores in report.cores.items()},
            "generator_cores": report.cores["generator"],
            "generator_share": report.generator_share,
            "floor_generator_share": floor.generator_share,
        },
    )


def measure_floor(options: RunOptions) -> LoadReport:
    """The same requests to a bare FastAPI route."""
    with child.running("bench.floors", "pledges") as server:
        seconds, processes = options.intake_s, {"server": server.pid}
        connections = options.intake_connections
        return send(order_of(server.port, "floor", "floor", "sk_live_none", connections, seconds, processes))


async def open_new_drive(system: System, slug: str) -> Credentials:
    """Open a drive with this slug; the credentials to pledge to it."""
    installation = system.installation
    async with new_session() as session:
        api = ApiClient(session, installation.gateway_url)
        return await open_drive(api, read_json(installation.directory / "keys.json"), slug, slug)


def order_of(
    port: int,
    drive: str,
    run: str,
    secret: str,
    connections: int,
    seconds: float,
    processes: Mapping[str, int] | None = None,
) -> Order:
    """Pledges to `drive`; the idempotency keys begin with `run`."""
    headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": f"{run}-{{number}}"}
    request = post(f"/v1/drives/{drive}/pledges", BODY, headers)
    return Order(
        port,
        request,
        connections,
        seconds,
        expected=201,
        warm_up_s=1.0,
        processes=processes or {},
    )
