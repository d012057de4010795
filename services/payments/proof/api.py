"""The HTTP API of audits: the newest one for everybody, and the steps of a new one for internal callers."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path
from pydantic import BaseModel

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.http.caller import CallerDep, InternalDep
from backbone.http.fields import REFERENCE, Body, MoneyView, Text, TimestampView, id_schema, text_schema
from backbone.http.problems import NotFound, Overloaded, documented
from services.payments.drive_lookup import DriveLookup
from services.payments.proof import store
from services.payments.proof.state import AuditState
from services.payments.proof.steps import Audit
from services.payments.proof.store import StoredProof
from services.payments.proof.worker import Auditor

LEAST_INTERVAL: Final = timedelta(minutes=1)
"""At most one audit of a drive is made in this time."""
REST_RATIO: Final = 20
"""The time between two audits of a drive, at least, as a multiple of what the last one took."""
WAIT_S: Final = 8.0
"""How long the first read of a drive's audit waits for it to be made."""
POLL_S: Final = 0.25


DriveRef = Annotated[str, Path(description="The drive's id or slug."), text_schema(REFERENCE)]


class AmountsView(BaseModel):
    """What each source states of a drive's processor money in one currency.

    `ledger` and `processor` are what was captured less what was refunded and disputed, by the ledger's
    postings and by what Stripe reported. `totals` is the same by the drive's totals, which leave out `held`.
    So `ledger` = `processor` = `totals` + `held`, and `difference` is by how much they are apart, payment by
    payment: 0.
    """

    ledger: MoneyView
    processor: MoneyView
    totals: MoneyView
    held: MoneyView
    difference: MoneyView


class OtherCurrencyView(AmountsView):
    """Money in another currency than the drive's."""

    currency: Annotated[str, text_schema("[A-Z]{3}")]


class AuditView(AmountsView):
    """The newest audit of a drive.

    While `settled` is false, `in_transit` payments have changed and are not counted yet; the amounts are
    those of the others. `differences` counts everything that was found, also what is no money.
    `epoch`, `sequence` and `head_hash` are the last row of the drive's log up to which its hashes were
    computed again. What Stripe reported was compared with Stripe's lists up to `processor_compared_to`.
    """

    drive: Annotated[str, id_schema("drv")]
    slug: str
    currency: Annotated[str, text_schema("[A-Z]{3}")]
    other_currencies: list[OtherCurrencyView]
    differences: int
    payments: int
    settled: bool
    in_transit: int
    epoch: int
    sequence: int
    head_hash: str
    log_verified: bool
    processor_compared_to: TimestampView | None
    as_of: TimestampView


class DriveToAudit(Body):
    """A drive, by id or slug."""

    drive: Text


class AuditProgress(BaseModel):
    """An audit under way, and the share of it that is done."""

    state: AuditState
    progress: float
    settled: bool


def audit_routes(
    database: Database, auditor: Auditor, audit: Audit, drives: DriveLookup, clock: Clock
) -> APIRouter:
    """The routes of audits."""
    router = APIRouter()

    @router.get(
        "/v1/drives/{drive}/audit", response_model=AuditView, responses=documented(NotFound, Overloaded)
    )
    async def read_audit(drive: DriveRef, _caller: CallerDep) -> Any:
        """The newest audit of a drive; at most one a minute is made.

        An older one is answered too, and a new one is begun. The first read of a drive waits for its audit.
        """
        found = await drives.find(drive)
        proof = await store.read_proof(database, found.id)
        if _is_old(proof, clock) and proof.asked_at is None:
            await store.ask(database, found.id, clock.now())
            auditor.asked.set()
        return proof.reply if proof.reply is not None else await _first(database, found.id)

    @router.post("/internal/audit/begin", include_in_schema=False)
    async def begin(_caller: InternalDep, wanted: DriveToAudit) -> AuditProgress:
        """Begin an audit, which is not stored."""
        return _progress(await audit.begin(await drives.find(wanted.drive)))

    @router.post("/internal/audit/step", include_in_schema=False)
    async def step(_caller: InternalDep, state: AuditState) -> AuditProgress:
        """Take the next step of an audit."""
        await audit.step(state)
        return _progress(state)

    return router


def _progress(state: AuditState) -> AuditProgress:
    return AuditProgress(state=state, progress=state.progress, settled=state.settled)


def _is_old(proof: StoredProof, clock: Clock) -> bool:
    if proof.made_at is None:
        return True
    rest = max(LEAST_INTERVAL, REST_RATIO * timedelta(milliseconds=proof.took_ms))
    return clock.now() - proof.made_at >= rest


async def _first(database: Database, drive_id: str) -> Any:
    """A drive's first audit, once it is made. Raises `Overloaded` where that takes too long."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + WAIT_S
    while loop.time() < give_up:
        await asyncio.sleep(POLL_S)
        if (proof := await store.read_proof(database, drive_id)).reply is not None:
            return proof.reply
    raise Overloaded("The first audit of this drive is being made.", retry_after_s=2)
