"""Batches with an item that fails: the others are done, the one is given up on by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from backbone.database.transient import is_transient

T = TypeVar("T")


async def bisect(
    items: Sequence[T],
    act: Callable[[Sequence[T]], Awaitable[None]],
    give_up: Callable[[T, Exception], Awaitable[None]],
) -> None:
    """Call `act` with all `items`; where it raises, with each half, down to single items.

    `act` must do all or nothing. An item that fails alone goes to `give_up` with its error. An error
    that says nothing about the items (the database is unavailable) is raised; then the items before it
    are done and those after it were not tried.
    """
    if not items:
        return
    try:
        await act(items)
    except Exception as error:
        if is_transient(error):
            raise
        if len(items) == 1:
            await give_up(items[0], error)
            return
        middle = len(items) // 2
        await bisect(items[:middle], act, give_up)
        await bisect(items[middle:], act, give_up)
