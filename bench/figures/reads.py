"""Totals a second of one gateway process: keep-alive connections, full body and matching ETag."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Sequence

from bench import child
from bench.http_load import LoadReport, Order, get, send
from bench.results import Measured
from bench.run_options import RunOptions
from bench.systems import CannotStart

READY_S = 20.0
ROUNDS = 3


def measure(gateway: child.Child, drive: str, options: RunOptions) -> Iterator[Measured]:
    """`reads` and `reads_etag` of a running gateway process, whose CPU is measured beside the generator's.

    Floor and figures are measured in turn, several times: a neighbour that is busy for a while then meets
    all of them. The best round of each counts.
    """
    path = f"/v1/drives/{drive}/totals"
    floors, full, matching = [], [], []
    with child.running("bench.floors", "hello") as server:
        for _ in range(ROUNDS):
            floors.append(send(_order(server, get("/"), options)))
            full.append(send(_order(gateway, get(path), options)))
            # Read again: the state in it follows the gateway's freshness, which a busy machine delays.
            known = {"If-None-Match": etag_of(gateway.port, path)}
            matching.append(send(_order(gateway, get(path, known), options, 304)))
    floor = _best(floors)
    yield _measured("reads", _best(full), floor, options)
    yield _measured("reads_etag", _best(matching), floor, options)


def _best(reports: Sequence[LoadReport]) -> LoadReport:
    """The round with the most requests a second: other processes can only slow a round down."""
    return max(reports, key=lambda report: report.per_s)


def _measured(name: str, report: LoadReport, floor: LoadReport, options: RunOptions) -> Measured:
    a_core, floor_a_core = (one.per_s / max(one.cores["server"], 0.01) for one in (report, floor))
    return Measured(
        name,
        report.per_s,
        floor.per_s,
        {
            "p50_ms": report.p50_ms,
            "p99_ms": report.p99_ms,
            "aim_p99_ms": 20,
            "aim_ratio": 0.8,
            "connections": options.read_connections,
            "rounds": ROUNDS,
            "response_bytes": report.response_bytes,
            "errors": report.errors,
            "reads_a_busy_core_s": a_core,
            "floor_a_busy_core_s": floor_a_core,
            "ratio_a_busy_core": a_core / floor_a_core,
            "gateway_cores": report.cores["server"],
            "generator_cores": report.cores["generator"],
            "generator_share": report.generator_share,
            "floor_server_cores": floor.cores["server"],
            "floor_generator_cores": floor.cores["generator"],
        },
    )


def _order(server: child.Child, request: str, options: RunOptions, expected: int = 200) -> Order:
    return Order(
        server.port,
        request,
        options.read_connections,
        options.reads_s / ROUNDS,
        expected,
        processes={"server": server.pid},
    )


def etag_of(port: int, path: str) -> str:
    """The ETag of a resource once it answers 200. Raises CannotStart where it does not in time."""
    give_up = time.monotonic() + READY_S
    failure = ""
    while time.monotonic() < give_up:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                return response.headers.get("ETag", "")
            failure = str(response.status)
        except OSError as error:
            failure = str(error)
        finally:
            connection.close()
        time.sleep(0.1)
    raise CannotStart(f"GET {path} gives no 200 in {READY_S:.0f} s: {failure}")
