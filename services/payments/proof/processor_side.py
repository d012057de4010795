"""Stripe's lists of a drive's captures, refunds and disputes, compared with the stored facts.

For `ataa audit --processor`: each call lists one page, and the caller adds up what was listed. The sweep
(`reconciliation/sweep.py`) compares the same continuously, and repairs; this only reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import bindparam, func, select, text

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.database.one_of import one_of
from backbone.http.caller import InternalDep
from backbone.http.fields import Body, Text
from backbone.http.problems import Overloaded
from services.payments.domain import DisputeRank, FactKind, Observation, RefundRank
from services.payments.processor import ListedFact, Processor, ProcessorError
from services.payments.recording.rows import StoredFact, read_facts
from services.payments.tables import CAPTURED, FACTS, PAYMENTS

PAGE: Final = 5_000
BEFORE_FIRST: Final = timedelta(hours=1)
"""Stripe's clock may differ from ours, by far less."""
MAX_REREAD: Final = 100


class ListWanted(Body):
    """One page of what Stripe lists of a drive, by its id."""

    drive: Text
    kind: FactKind
    after: Text | None = None


class FactsWanted(Body):
    """A page of a drive's stored facts."""

    drive: Text
    after: Text = ""


class FactRef(Body):
    """A refund or dispute, or a payment intent, by Stripe's id."""

    kind: FactKind
    fact: Text


class Reread(Body):
    """Facts to be read again, one by one."""

    facts: Annotated[list[FactRef], Field(max_length=MAX_REREAD)]


class ProcessorSide:
    """Reads Stripe and compares; stores nothing. Raises `ProcessorError`."""

    def __init__(self, database: Database, processor: Processor, clock: Clock) -> None:
        self._database = database
        self._processor = processor
        self._clock = clock

    async def list_page(self, wanted: ListWanted) -> dict[str, Any]:
        """One page of Stripe's list from the drive's first payment to now: the ids of the drive's facts
        (`seen`), which of them differ, and the next page.
        """
        since = await self._first_payment(wanted.drive)
        if since is None:
            return {"seen": [], "differences": [], "after": None}
        page = await self._processor.list_facts(wanted.kind, since, self._clock.now(), wanted.after)
        of_drive = await self._of_drive(wanted.drive, page.facts)
        differences = await self._compare(of_drive) + [
            {"payment": None, "fact": one, "kind": wanted.kind, "why": "unreadable"}
            for one in page.unreadable
        ]
        seen = [fact.observation.id for fact in of_drive]
        return {"seen": seen, "differences": differences, "after": page.after}

    async def reread(self, facts: Sequence[FactRef]) -> list[dict[str, Any]]:
        """Those of these facts that still differ, each read in its present state."""
        found = []
        for one in facts:
            if one.kind is FactKind.CAPTURE:
                capture = await self._processor.find_capture(one.fact)
                listed = ListedFact(capture, None, ours=True) if isinstance(capture, Observation) else None
            else:
                listed = await self._processor.read_fact(one.kind, one.fact)
            if listed is not None:
                found.append(listed)
        return await self._compare(found)

    async def stored_facts(self, wanted: FactsWanted) -> dict[str, Any]:
        """A page of the ids of a drive's captures, refunds and disputes, and where the next one begins."""
        given = {"of_drive": wanted.drive, "after": wanted.after, "most": PAGE}
        async with self._database.reading() as session:
            payments = [row.id for row in await session.execute(_PAYMENTS, given)]
            facts = [row.id for row in await session.execute(_FACTS_OF, {"ids": payments})]
        return {"facts": facts, "next": payments[-1] if len(payments) == PAGE else None}

    async def _first_payment(self, drive: str) -> datetime | None:
        async with self._database.reading() as session:
            first: datetime | None = (await session.execute(_FIRST, {"of_drive": drive})).scalar()
        return None if first is None else first - BEFORE_FIRST

    async def _of_drive(self, drive: str, facts: Sequence[ListedFact]) -> list[ListedFact]:
        """The facts of a drive: by the payment that is stored, else by Stripe's metadata."""
        intents = [fact.observation.intent for fact in facts if fact.observation.intent]
        async with self._database.reading() as session:
            rows = (await session.execute(_DRIVES_OF, {"intents": intents})).all() if intents else []
        stored = {row.intent: row.drive_id for row in rows}
        return [fact for fact in facts if stored.get(fact.observation.intent, _named(fact)) == drive]

    async def _compare(self, facts: Sequence[ListedFact]) -> list[dict[str, Any]]:
        """Those that are not stored as Stripe lists them. The sweep's comparison would not do: it merges
        the two, and a stored amount above Stripe's remains.
        """
        listed = [fact.observation for fact in facts]
        async with self._database.reading() as session:
            known = await read_facts(session, ids=[each.id for each in listed])
            differing = [each for each in listed if not _is_same(each, known.get(each.id))]
            intents = [each.intent for each in differing if each.intent]
            rows = (await session.execute(_DRIVES_OF, {"intents": intents})).all() if intents else []
        payments = {row.intent: row.id for row in rows}
        return [
            {
                "payment": payments.get(each.intent),
                "fact": each.id,
                "kind": each.kind,
                "why": f"{_stated(each)} at Stripe, {_stored(known.get(each.id))} here",
            }
            for each in differing
        ]


def _is_same(listed: Observation, known: StoredFact | None) -> bool:
    """Whether a fact is stored with the amounts and the status that Stripe lists.

    The ranks of captures only tell which object reported them.
    """
    if known is None:
        return False
    here = known.observation
    same = (listed.units, listed.currency) == (here.units, here.currency)
    if listed.kind is FactKind.CAPTURE:
        return same
    return same and (listed.rank, listed.withdrawn, listed.returned) == (
        here.rank, here.withdrawn, here.returned,
    )  # fmt: skip


def _stated(fact: Observation) -> str:
    status = (
        "" if fact.kind is FactKind.CAPTURE else f" with status {_RANKS[fact.kind](fact.rank).name.lower()}"
    )
    return f"{fact.units} {fact.currency}{status}"


def _stored(known: StoredFact | None) -> str:
    return "nothing" if known is None else _stated(known.observation)


_RANKS: Final = {FactKind.REFUND: RefundRank, FactKind.DISPUTE: DisputeRank}


def _named(fact: ListedFact) -> str | None:
    return fact.observation.drive_id or (fact.capture.drive_id if fact.capture else None)


_FIRST: Final = select(func.min(PAYMENTS.c.made_at)).where(
    PAYMENTS.c.drive_id == bindparam("of_drive"), text(CAPTURED), PAYMENTS.c.intent.is_not(None)
)
_PAYMENTS: Final = (
    select(PAYMENTS.c.id)
    .where(
        PAYMENTS.c.drive_id == bindparam("of_drive"),
        text(CAPTURED),
        PAYMENTS.c.intent.is_not(None),
        PAYMENTS.c.id > bindparam("after"),
    )
    .order_by(PAYMENTS.c.id)
    .limit(bindparam("most"))
)
_FACTS_OF: Final = select(FACTS.c.id).where(
    FACTS.c.intent.in_(select(PAYMENTS.c.intent).where(one_of(PAYMENTS.c.id, "ids"))),
    FACTS.c.kind.in_((FactKind.CAPTURE, FactKind.REFUND, FactKind.DISPUTE)),
)
_DRIVES_OF: Final = select(PAYMENTS.c.intent, PAYMENTS.c.drive_id, PAYMENTS.c.id).where(
    one_of(PAYMENTS.c.intent, "intents")
)


def processor_routes(side: ProcessorSide) -> APIRouter:
    """The internal routes; `Overloaded` where Stripe does not answer."""
    router = APIRouter(prefix="/internal/audit", include_in_schema=False)

    @router.post("/processor")
    async def list_page(_caller: InternalDep, wanted: ListWanted) -> dict[str, Any]:
        try:
            return await side.list_page(wanted)
        except ProcessorError as error:
            raise Overloaded(f"Stripe does not list {wanted.kind}s: {error}", retry_after_s=5) from None

    @router.post("/facts")
    async def stored_facts(_caller: InternalDep, wanted: FactsWanted) -> dict[str, Any]:
        return await side.stored_facts(wanted)

    @router.post("/reread")
    async def reread(_caller: InternalDep, wanted: Reread) -> dict[str, Any]:
        try:
            return {"differences": await side.reread(wanted.facts)}
        except ProcessorError as error:
            raise Overloaded(f"Stripe does not answer: {error}", retry_after_s=5) from None

    return router
