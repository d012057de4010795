"""Logs as JSON lines on standard output, metrics for Prometheus, the trace that a request joins."""

from __future__ import annotations

import logging
import re
import secrets
from contextvars import ContextVar
from typing import Final

import structlog

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The W3C trace context of what is being done, as it goes into headers and outbox rows."""

_FORM: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)


def configure_logs(level: str) -> None:
    """JSON lines with time, level, event and fields; libraries' loggers speak from warning up."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        cache_logger_on_first_use=True,
    )


def join_trace(given: str | None) -> str:
    """The caller's traceparent with a span of our own, or a new trace where it has no sane one."""
    if given is not None and _FORM.fullmatch(given):
        return f"{given[:36]}{secrets.token_hex(8)}{given[52:]}"
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
