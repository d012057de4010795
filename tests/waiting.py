"""Waiting on conditions with a bound, instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any


async def until(condition: Callable[[], Any | Awaitable[Any]], within_s: float = 10.0) -> Any:
    """The first true value of `condition` (called, and awaited where it is a coroutine function's).

    Raises TimeoutError, naming the condition, once `within_s` is over.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if loop.time() > deadline:
            raise TimeoutError(f"not within {within_s} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.005)
