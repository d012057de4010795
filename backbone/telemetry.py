"""Logs on standard output, the freshness metric, and W3C trace context."""

from __future__ import annotations

import logging
import os
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from contextvars import ContextVar
from typing import Final

import structlog
from prometheus_client import Histogram

from backbone.hex_source import HexSource
from backbone.settings import LogFormat

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The current W3C trace context, propagated in headers and outbox rows."""

FRESHNESS: Final = Histogram(
    "ataa_freshness_seconds",
    "Time a donation takes from one stage of counting to the next (docs/operations/metrics.md).",
    ["stage"],
    buckets=(0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 300),
)
"""Each stage is observed where it ends. Call `labels` once, not for each donation."""

STAGE: Final = Histogram(
    "ataa_stage_seconds",
    "Time in one stage between a webhook and the screens; the stages add up (docs/performance.md).",
    ["stage", "service"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 30),
)
"""Each stage begins where the one before it ends, and is observed where it ends."""

_TRACES: Final = HexSource(16)
_SPANS: Final = HexSource(8)


def observe_all(histogram: Histogram, values: Collection[float]) -> None:
    """Observe many values of a labelled histogram, in a tenth of the time of single calls.

    prometheus_client has no such call: its buckets and its sum are attributes that it does not document.
    """
    ordered, begin = sorted(values), 0
    while begin < len(ordered):
        place = bisect_left(histogram._upper_bounds, ordered[begin])
        end = bisect_right(ordered, histogram._upper_bounds[place], begin)
        histogram._buckets[place].inc(end - begin)
        begin = end
    if ordered:
        histogram._sum.inc(sum(ordered))


_FORM: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def configure_logs(level: str, log_format: LogFormat = "json") -> None:
    """Log time, level, event and fields, from `level` up; library loggers from warning up.

    `json` writes one JSON object per line, `console` aligned and coloured lines with readable
    tracebacks.
    """
    for_people = log_format == "console" or (log_format == "auto" and sys.stdout.isatty())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *(_CONSOLE if for_people else _JSON),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )


_JSON: Final = (
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(ensure_ascii=False),
)
_CONSOLE: Final = (
    structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
    structlog.dev.ConsoleRenderer(
        # https://no-color.org
        colors=sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        exception_formatter=structlog.dev.plain_traceback,
        pad_event_to=32,
    ),
)


def join_trace(given: str | None) -> str:
    """The caller's traceparent with a new span id, or a new trace where it is missing or invalid."""
    if given is not None and _FORM.fullmatch(given):
        return f"{given[:36]}{_SPANS.take()}{given[52:]}"
    return f"00-{_TRACES.take()}-{_SPANS.take()}-01"
