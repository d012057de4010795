"""Waiting for conditions with a timeout, instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

PATIENCE_S: Final = 60.0
"""The timeout for a condition that must become true: far longer than a slow, busy machine needs. It costs
nothing when the condition becomes true, so no test sets a shorter one."""

_OFTEN_S: Final = 0.005
_SELDOM_S: Final = 0.1


async def until(condition: Callable[[], Any | Awaitable[Any]], within_s: float = PATIENCE_S) -> Any:
    """Return the first true value of `condition`, whose result is awaited if it is awaitable.

    Between two calls it waits four times as long as a call took, which leaves the CPU to the system under
    test. Raises TimeoutError with the condition's source after `within_s`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        asked = loop.time()
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        answered = loop.time()
        if answered > deadline:
            raise TimeoutError(f"not within {within_s} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(min(_SELDOM_S, max(_OFTEN_S, 4 * (answered - asked))))
