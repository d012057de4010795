"""`ataa dead-letters`: the events that consumer groups gave up."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ataa.installation import SERVICES, Refused, Services

AT_ONCE: Final = 500
"""Events of one request: a service reads its dead letters once for each."""


class Outcome(NamedTuple):
    """What became of the replay of an event; `done` unless it was refused."""

    id: str
    text: str
    done: bool


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


async def replay_letters(services: Services, letter: str | None, group: str | None) -> list[Outcome]:
    """Publish one event again, or all that their groups have not handled."""
    every = await list_letters(services, group)
    chosen = [one for one in every if (not one["handled"] if letter is None else one["id"] == letter)]
    if letter is not None and not chosen:
        raise Refused("No such dead letter.")
    outcomes: list[Outcome] = []
    for asked in sorted({one["group"] for one in chosen}):
        ids = [one["id"] for one in chosen if one["group"] == asked]
        for first in range(0, len(ids), AT_ONCE):
            some = {"ids": ids[first : first + AT_ONCE]}
            reply = await services.ask(asked, "/internal/dead-letters/replay", some)
            outcomes += [_outcome(asked, one) for one in reply["data"]]
    return outcomes


def _outcome(group: str, replayed: dict[str, Any]) -> Outcome:
    """Another group's replay of the same event may have repaired this one: then nothing is left to do."""
    if replayed["handled"]:
        return Outcome(replayed["id"], f"handled by {group} meanwhile", done=True)
    if replayed["refused"] is not None:
        return Outcome(replayed["id"], replayed["refused"], done=False)
    return Outcome(replayed["id"], f"published again on {replayed['topic']} for {group}", done=True)


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
        cells = (one["id"], one["group"], one["name"], one["at"] or "?", state, one["reason"][:200])
        table.add_row(*map(escape, cells))
    console.print(table)
