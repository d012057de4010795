"""Live frames of one gateway process to many clients: CPU a send, memory a client, delay."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from bench import child, rivals
from bench.figures.reads import etag_of
from bench.http_load import LoadFailed
from bench.progress import Progress
from bench.results import Detail, Measured
from bench.run_options import NOT_QUICK, RunOptions
from bench.stream_load import StreamOrder, send
from bench.systems import CannotStart

SETTINGS = {"ATAA_LIVE_SENDS_PER_S": "10000000"}
"""Without the gateway's budget of sends, which would lower the rate of frames under so many clients."""
_OTHER_FILES = 500


def require_open_files(clients: int) -> None:
    """Let this process and its children open a file a client. Raises CannotStart."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = clients + _OTHER_FILES
    if most != resource.RLIM_INFINITY and most < needed:
        raise CannotStart(f"{clients} clients need {needed} open files; the hard limit is {most}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def measure(gateway: child.Child, drive: str, options: RunOptions, progress: Progress) -> Iterator[Measured]:
    """`fanout`, `fanout_memory` and `fanout_delay` of a gateway that publishes snapshots itself.

    The details of `fanout` have the same of each rival engine, or why it was skipped.
    """
    etag_of(gateway.port, f"/v1/drives/{drive}/totals")
    clients, seconds = options.fanout_clients, options.fanout_s
    found = send(StreamOrder(gateway.port, f"/v1/drives/{drive}/live", clients, seconds, gateway.pid))
    arguments = ("stream", str(round(found.frame_bytes)), str(options.frames_per_s))
    with child.running("bench.floors", *arguments) as server:
        floor = send(StreamOrder(server.port, "/", clients, seconds, server.pid))
    details: dict[str, Detail] = {
        "clients": clients,
        "frames_a_client_s": found.frames / clients / found.seconds,
        "frame_bytes": round(found.frame_bytes),
        "gateway_cores": found.cores["server"],
        "generator_cores": found.cores["generator"],
        "generator_share": found.generator_share,
        "floor_generator_share": floor.generator_share,
        **_rivals(round(found.frame_bytes), options, progress),
    }
    yield Measured("fanout", found.us_a_send, floor.us_a_send, details)
    yield Measured("fanout_memory", found.kib_a_client, floor.kib_a_client, {"clients": clients})
    if found.p99_ms is not None:
        delays = {"p50_ms": found.p50_ms, "p99_ms": found.p99_ms, "floor_p50_ms": floor.p50_ms}
        yield Measured("fanout_delay", found.p99_ms, floor.p99_ms, {"clients": clients, **delays})


def _rivals(frame_bytes: int, options: RunOptions, progress: Progress) -> dict[str, Detail]:
    details: dict[str, Detail] = {}
    for name in rivals.NAMES:
        if not options.rivals:
            details[f"{name}_skipped"] = NOT_QUICK
            continue
        progress.begin(f"{options.fanout_clients:,} streams of {name}", options.fanout_s)
        try:
            with rivals.running(name, frame_bytes, options.frames_per_s) as rival:
                order = StreamOrder(
                    rival.port, rival.path, options.fanout_clients, options.fanout_s, rival.pid
                )
                report = send(order)
        except (rivals.NotInstalled, CannotStart, LoadFailed) as error:
            progress.failed(f"{name}: {error}")
            details[f"{name}_skipped"] = str(error)
            continue
        details |= {
            f"{name}_us_a_send": report.us_a_send,
            f"{name}_kib_a_client": report.kib_a_client,
            f"{name}_p99_ms": report.p99_ms,
            f"{name}_frame_bytes": round(report.frame_bytes),
            f"{name}_frames_a_client_s": report.frames / options.fanout_clients / report.seconds,
            f"{name}_generator_share": report.generator_share,
        }
    return details
