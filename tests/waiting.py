"""Waiting on conditions with a bound, instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

PATIENCE_S: Final = 60.0
"""How long a test waits for what must come: far longer than a slow, busy machine takes. Waiting that
long costs nothing where it comes, so no test of its own has a shorter bound."""

_OFTEN_S: Final = 0.005
_SELDOM_S: Final = 0.1


async def until(condition: Callable[[], Any | Awaitable[Any]], within_s: float = PATIENCE_S) -> Any:
    """The first true value of `condition` (called, and awaited where it is a coroutine function's).

    Asking leaves most of the time to those who are waited for. Raises TimeoutError, naming the
    condition, once `within_s` is over.
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
