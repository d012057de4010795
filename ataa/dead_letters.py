"""`ataa dead-letters`: the events that consumer groups gave up."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ataa.installation import SERVICES, Refused, Services


async def list_letters(services: Services, group: str | None) -> list[dict[str, Any]]:
    """The dead letters of a group, or of all, each with its group; oldest first. Raises `Unreachable`."""
    groups = SERVICES if group is None else (group,)
    answers = await asyncio.gather(*(services.ask(one, "/internal/dead-letters", {}) for one in groups))
    found = [{"group": answer["group"], **letter} for answer in answers for letter in answer["data"]]
    return sorted(found, key=lambda letter: str(letter["id"]))


async def show_letter(services: Services, letter: str) -> dict[str, Any]:
    """A dead letter with its event, and the group that gave it up. Raises `Unreachable` and `Refused`."""
    group = (await _find(services, letter))["group"]
    return {"group": group, **await services.ask(group, "/internal/dead-letters/show", {"id": letter})}


async def replay_letters(services: Services, letter: str | None, group: str | None) -> list[tuple[str, str]]:
    """Publish one event again, or all that their groups have not handled; each id with what became of it."""
    every = await list_letters(services, group)
    chosen = [one for one in every if (not one["handled"] if letter is None else one["id"] == letter)]
    if letter is not None and not chosen:
        raise Refused("No such dead letter.")
    outcomes: list[tuple[str, str]] = []
    for one in chosen:
        try:
            await services.ask(one["group"], "/internal/dead-letters/replay", {"id": one["id"]})
        except Refused as error:
            outcomes.append((one["id"], str(error)))
        else:
            outcomes.append((one["id"], f"published again on {one['topic']} for {one['group']}"))
    return outcomes


async def _find(services: Services, letter: str) -> dict[str, Any]:
    for one in await list_letters(services, None):
        if one["id"] == letter:
            return one
    raise Refused("No such dead letter.")


def show(letters: list[dict[str, Any]], console: Console) -> None:
    """Print dead letters as a table."""
    if not letters:
        console.print("No dead letters.")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("event", "group", "kind", "announced", "state", "reason"):
        table.add_column(name, overflow="fold")
    for one in letters:
        state = "handled" if one["handled"] else "waiting"
        table.add_row(
            one["id"], one["group"], one["name"], one["at"] or "?", state, escape(one["reason"][:200])
        )
    console.print(table)
