"""From the answer to a capturing webhook to the frame that covers it, at fixed rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.bus_hop import embedded_hop_ms, kafka_hop_ms
from bench.donation_run import GENERATOR, donate
from bench.event_loop import run_on_uvloop
from bench.results import Measured
from bench.run_options import RunOptions
from bench.systems import System
from rehearsal.freshness import percentile

RATE: Final = 40.0
HIGH_RATE: Final = 150.0
SUSTAINED: Final = 0.8
"""The part of the rate that has to be reached, so that the delay is that of the rate."""
_AIM_P50_MS: Final = {"embedded": 40, "stack": 80}


class NotSustained(Exception):
    """The system did not take donations at the rate whose delay is asked for."""


def measure(system: System, options: RunOptions, rate: float) -> Measured:
    """The delay at a rate; at the lower one the floor is a hop through this system's bus.

    Raises NotSustained.
    """
    suffix = "" if system.name == "embedded" else "_stack"
    if rate == HIGH_RATE:
        return _measured(f"freshness_150{suffix}", system, rate, options, ())
    return _measured(f"freshness{suffix}", system, rate, options, run_on_uvloop(_hops(system, options)))


async def _hops(system: System, options: RunOptions) -> list[float]:
    if system.name == "embedded":
        return await embedded_hop_ms(RATE, options.hop_s)
    return await kafka_hop_ms(f"127.0.0.1:{system.ports['kafka']}", RATE, options.hop_s)


def _measured(name: str, system: System, rate: float, options: RunOptions, hops: Sequence[float]) -> Measured:
    run = run_on_uvloop(donate(system, rate, options.freshness_s, options.donors, settle=False))
    value = run.delay_ms(0.99)
    if value is None or run.per_s < rate * SUSTAINED:
        raise NotSustained(
            f"{run.per_s:.1f} of {rate:.0f} donations/s were paid and seen; the delay is no figure"
        )
    aims = {"aim_p50_ms": _AIM_P50_MS[system.name]} if rate == RATE else {}
    return Measured(
        name,
        value,
        percentile(hops, 0.99),
        {
            "p50_ms": run.delay_ms(0.5),
            "p99_ms": value,
            **aims,
            "floor_p50_ms": percentile(hops, 0.5),
            "rate_per_s": run.per_s,
            "donations": len(run.delays_ms),
            "errors": run.errors,
            **{f"stage_{stage.replace(' ', '_')}_ms": spent for stage, spent in run.stages_ms.items()},
            "cpu_ms_a_donation": run.cpu_ms_a_donation(),
            "cores": sum(run.cores.values()),
            "generator_cores": run.cores[GENERATOR],
            "generator_share": run.generator_share,
        },
    )
