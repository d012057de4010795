"""Batches with an item that fails: the others are done, the failing one is isolated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from backbone.database.transient import is_transient

T = TypeVar("T")


async def bisect(
    items: Sequence[T],
    act: Callable[[Sequence[T]], Awaitable[None]],
    isolate: Callable[[T, Exception], Awaitable[None]],
    interrupts: Callable[[Exception], bool] = is_transient,
) -> None:
    """Call `act` with all `items`; where it raises, with each half, down to single items.

    `act` must do all or nothing. An item that fails alone goes to `isolate` with its error. One failing
    item of n costs at most 2 log2(n) further calls. An error that `interrupts` does not depend on the items
    (the database is unavailable) and is raised: the items before it are done, those after it were not tried.
    """
    if not items:
        return
    try:
        await act(items)
    except Exception as error:
        if interrupts(error):
            raise
        if len(items) == 1:
            await isolate(items[0], error)
            return
        middle = len(items) // 2
        await bisect(items[:middle], act, isolate, interrupts)
        await bisect(items[middle:], act, isolate, interrupts)
