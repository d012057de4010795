"""The event loop of load generators and floors: uvloop, as in the services."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

Result = TypeVar("Result")


def run_on_uvloop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` to its end on a new uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
