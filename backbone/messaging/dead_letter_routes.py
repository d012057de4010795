"""Internal routes for the dead letters of a service's group."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from backbone.bus.protocol import BusUnavailable
from backbone.http.caller import InternalDep
from backbone.http.fields import Body, Text
from backbone.http.problems import Conflict, NotFound, Overloaded
from backbone.messaging.dead_letters import DeadLetter, DeadLetters, Unreplayable


class LetterRef(Body):
    """A dead letter, by the id of its event."""

    id: Text


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
    async def replay_letter(_caller: InternalDep, wanted: LetterRef) -> dict[str, Any]:
        """Publish the event of a dead letter again; 409 where that would change nothing or too much."""
        letter = await find(wanted.id)
        try:
            await letters.replay(letter)
        except Unreplayable as error:
            raise Conflict(str(error)) from None
        return letter.as_json()

    return router
