"""Internal routes for the dead letters of a service's group."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from backbone.bus.protocol import BusUnavailable
from backbone.http.caller import InternalDep
from backbone.http.fields import Body, Text
from backbone.http.problems import NotFound, Overloaded
from backbone.messaging.dead_letters import DeadLetter, DeadLetters, Unreplayable


class LetterRef(Body):
    """A dead letter, by the id of its event."""

    id: Text


class LetterRefs(Body):
    """Dead letters, by the ids of their events."""

    ids: Annotated[list[Text], Field(min_length=1, max_length=1_000)]


def dead_letter_routes(letters: DeadLetters) -> APIRouter:
    """`/internal/dead-letters`: list, show and replay. `Overloaded` where the bus does not answer."""
    router = APIRouter(prefix="/internal/dead-letters", include_in_schema=False)

    async def read() -> list[DeadLetter]:
        try:
            return await letters.all()
        except (BusUnavailable, TimeoutError) as error:
            raise Overloaded(f"The dead letters cannot be read: {error}", retry_after_s=5) from None

    async def find(letter_id: str) -> DeadLetter:
        for letter in await read():
            if letter.id == letter_id:
                return letter
        raise NotFound("No such dead letter.")

    @router.post("")
    async def list_letters(_caller: InternalDep) -> dict[str, Any]:
        """The group's dead letters, oldest first, without their events."""
        return {"group": letters.group, "data": [letter.as_json() for letter in await read()]}

    @router.post("/show")
    async def show_letter(_caller: InternalDep, wanted: LetterRef) -> dict[str, Any]:
        """A dead letter with its event."""
        return (await find(wanted.id)).as_json(whole=True)

    @router.post("/replay")
    async def replay(_caller: InternalDep, wanted: LetterRefs) -> dict[str, Any]:
        """Publish the events of dead letters again. `refused` says why one was not: it would change nothing
        (`handled`), or too much. Unknown ones are left out.
        """
        by_id = {letter.id: letter for letter in await read()}
        chosen = [by_id[one] for one in dict.fromkeys(wanted.ids) if one in by_id]
        return {"data": [await _replayed(letter) for letter in chosen]}

    async def _replayed(letter: DeadLetter) -> dict[str, Any]:
        refused = None
        try:
            await letters.replay(letter)
        except Unreplayable as error:
            refused = str(error)
        return {**letter.as_json(), "refused": refused}

    return router
