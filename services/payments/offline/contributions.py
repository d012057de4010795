"""Contributions in hours and goods: recorded by one key, summed once another approves. Never money."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, StringConstraints
from sqlalchemy import Row, bindparam, func, select, text

from backbone import ids
from backbone.clock import Clock, rfc3339
from backbone.database.database import Database
from backbone.http.caller import Caller
from backbone.http.fields import (
    Body,
    CreatorIdView,
    DriveIdView,
    Text,
    TimestampView,
    id_schema,
    text_schema,
    with_examples,
)
from backbone.idempotency import KeyedReply
from services.payments.approvals.proposals import KeyedRequest, ProposalKind, Proposals, no_effect
from services.payments.approvals.requests import CreatorRef, Evidence, StepView
from services.payments.approvals.states import Status
from services.payments.creator_lookup import CreatorLookup
from services.payments.drive_lookup import DriveLookup
from services.payments.offline.quantities import PATTERN, decimal, thousandths
from services.payments.offline.tables import APPROVED, CONTRIBUTIONS

MAX_SUMS: Final = 1_000
"""Kinds and units of one drive that are summed."""

ContributionKind = Literal["hours", "goods"]

_EXAMPLE: dict[str, Any] = {
    "kind": "hours",
    "quantity": "12.5",
    "unit": "hour",
    "label": "Packing blankets",
    "evidence": "Rota of 7 January",
}


_POSITIVE: Final = (
    r"[1-9][0-9]{0,8}(\.[0-9]{1,3})?|0\.([1-9][0-9]{0,2}|0[1-9][0-9]?|00[1-9])"  # PATTERN without zeros
)


def _positive(quantity: str) -> str:
    if thousandths(quantity) == 0:
        raise ValueError("must be more than zero")
    return quantity


class ContributionRequest(Body):
    """Hours that were worked, or goods that were given."""

    model_config = with_examples(_EXAMPLE)

    kind: ContributionKind
    quantity: Annotated[
        Text, StringConstraints(pattern=f"^{PATTERN}$"), AfterValidator(_positive), text_schema(_POSITIVE)
    ]
    unit: Annotated[Text, StringConstraints(min_length=1, max_length=40)]
    label: Annotated[Text, StringConstraints(min_length=1, max_length=200)]
    evidence: Evidence
    creator: CreatorRef | None = None


class ContributionView(BaseModel):
    """A contribution. It is in the sums once it is approved."""

    model_config = with_examples(
        {
            **_EXAMPLE,
            "id": "ctb_01frtz5n00000000000000000f",
            "drive": "drv_01frtz5n00000000000000000a",
            "status": "pending",
            "creator": None,
            "created_at": "2022-01-07T18:00:00.000Z",
            "history": [],
        }
    )

    id: Annotated[str, id_schema("ctb")]
    drive: DriveIdView
    status: Status
    kind: ContributionKind
    quantity: Annotated[str, text_schema(PATTERN)]
    unit: str
    label: str
    evidence: str
    creator: CreatorIdView | None
    created_at: TimestampView
    history: list[StepView]


class ContributionPage(BaseModel):
    """A page of contributions; `next` is None at its end."""

    data: list[ContributionView]
    next: str | None


class ContributionSumView(BaseModel):
    """The approved contributions of one kind in one unit."""

    kind: ContributionKind
    unit: str
    quantity: Annotated[str, text_schema(r"(0|[1-9][0-9]*)(\.[0-9]+)?")]
    contributions: int


class ContributionSums(BaseModel):
    """The approved contributions to a drive, by kind and unit."""

    data: list[ContributionSumView]


def contribution_json(row: Row[Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    """A contribution as the API shows it."""
    return {
        "id": row.id,
        "drive": row.drive_id,
        "status": row.status,
        "kind": row.kind,
        "quantity": decimal(row.quantity),
        "unit": row.unit,
        "label": row.label,
        "evidence": row.evidence,
        "creator": row.creator_id,
        "created_at": rfc3339(row.made_at),
        "history": history,
    }


class Contributions:
    """Records contributions and sums the approved ones; `proposals` takes the decisions."""

    def __init__(
        self, database: Database, drives: DriveLookup, creators: CreatorLookup, clock: Clock
    ) -> None:
        kind = ProposalKind(CONTRIBUTIONS, "contributions", contribution_json, no_effect)
        self.proposals = Proposals(database, drives, clock, kind)
        self._database = database
        self._drives = drives
        self._creators = creators
        self._clock = clock

    async def record(
        self, ref: str, request: ContributionRequest, caller: Caller, keyed: KeyedRequest
    ) -> KeyedReply:
        """Store a contribution to be approved. Repeating the key returns the first reply.

        Raises what `Proposals.drive`, `Proposals.record` and `CreatorLookup.find` raise.
        """
        drive = await self.proposals.drive(ref, caller)
        row: dict[str, Any] = {
            "id": ids.new("ctb"),
            "made_at": self._clock.now(),
            "kind": request.kind,
            "quantity": thousandths(request.quantity),
            "unit": request.unit,
            "label": request.label,
            "evidence": request.evidence,
            "creator_id": await self._creators.find(drive.id, request.creator),
        }
        return await self.proposals.record(drive, row, caller, keyed)

    async def sums(self, ref: str) -> dict[str, Any]:
        """The approved contributions to a drive by kind and unit. Raises what `DriveLookup.find` raises."""
        drive = await self._drives.find(ref)
        async with self._database.reading() as session:
            rows = (await session.execute(_SUMS, {"drive": drive.id})).all()
        return {
            "data": [
                {"kind": kind, "unit": unit, "quantity": decimal(int(quantity)), "contributions": number}
                for kind, unit, quantity, number in rows
            ]
        }


_SUMS: Final = (
    select(CONTRIBUTIONS.c.kind, CONTRIBUTIONS.c.unit, func.sum(CONTRIBUTIONS.c.quantity), func.count())
    .where(CONTRIBUTIONS.c.drive_id == bindparam("drive"), text(APPROVED))
    .group_by(CONTRIBUTIONS.c.kind, CONTRIBUTIONS.c.unit)
    .order_by(CONTRIBUTIONS.c.kind, CONTRIBUTIONS.c.unit)
    .limit(MAX_SUMS)
)
