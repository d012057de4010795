"""The stored audits: which are asked for, and the newest of each drive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, func, or_, select, text, update

from backbone.clock import rfc3339
from backbone.database.columns import Utc
from backbone.database.database import Database
from backbone.money import as_json
from services.payments.drive_lookup import KnownDrive
from services.payments.proof.state import AuditState, Sums
from services.payments.proof.tables import ASKED, PROOFS
from services.payments.statements import insert_new
from services.payments.tables import DRIVES, SWEEPS

SWEPT: Final = ("capture", "refund", "dispute")
"""The passes of the sweep over what is new (`reconciliation/sweep.py`)."""


class StoredProof(NamedTuple):
    """The newest audit of a drive, as stored."""

    reply: Mapping[str, Any] | None
    made_at: datetime | None
    asked_at: datetime | None
    took_ms: int


async def read_proof(database: Database, drive_id: str) -> StoredProof:
    """The newest audit of a drive; nothing but None where none was ever asked for."""
    async with database.reading() as session:
        row = (await session.execute(_READ, {"of_drive": drive_id})).first()
    return StoredProof(None, None, None, 0) if row is None else StoredProof(*row)


_OF_DRIVE: Final = PROOFS.c.drive_id == bindparam("of_drive")
_READ: Final = select(PROOFS.c.reply, PROOFS.c.made_at, PROOFS.c.asked_at, PROOFS.c.took_ms).where(_OF_DRIVE)


async def ask(database: Database, drive_id: str, at: datetime) -> None:
    """Ask for an audit of a drive, unless one is asked for already."""
    empty = {
        "made_at": None,
        "took_ms": 0,
        "reply": None,
        "differences": 0,
        "minor_units": 0,
        "currency": None,
    }
    async with database.transaction() as session:
        row = {"drive_id": drive_id, "asked_at": at, **empty}
        made = await session.execute(insert_new(session, PROOFS, "drive_id"), [row])
        if made.first() is None:
            await session.execute(_ASK, {"of_drive": drive_id, "now": at})


_ASK: Final = (
    update(PROOFS).where(_OF_DRIVE, PROOFS.c.asked_at.is_(None)).values(asked_at=bindparam("now", type_=Utc))
)


async def next_asked(database: Database) -> str | None:
    """The drive whose audit was asked for first; None where none is."""
    async with database.reading() as session:
        found: str | None = (await session.execute(_NEXT_ASKED)).scalar()
    return found


_NEXT_ASKED: Final = select(PROOFS.c.drive_id).where(text(ASKED)).order_by(PROOFS.c.asked_at).limit(1)


async def next_due(database: Database, before: datetime) -> str | None:
    """A running drive that was not audited since `before`, the longest waiting first; None without one."""
    async with database.reading() as session:
        found: str | None = (await session.execute(_NEXT_DUE, {"before": before})).scalar()
    return found


_NEXT_DUE: Final = (
    select(DRIVES.c.id)
    .outerjoin(PROOFS, and_(PROOFS.c.drive_id == DRIVES.c.id))
    .where(DRIVES.c.state.in_(("live", "paused")))
    .where(or_(PROOFS.c.made_at.is_(None), PROOFS.c.made_at < bindparam("before", type_=Utc)))
    .order_by(func.coalesce(PROOFS.c.made_at, 0), DRIVES.c.id)
    .limit(1)
)


async def save(
    database: Database, state: AuditState, reply: Mapping[str, Any], at: datetime, took_ms: int
) -> None:
    """Store an audit as the newest of its drive; it is no longer asked for."""
    await ask(database, state.drive, at)
    values = {
        "new_made_at": at,
        "new_took_ms": took_ms,
        "new_reply": reply,
        "new_differences": state.found,
        "new_minor_units": state.of(None).difference,
        "new_currency": state.currency,
    }
    async with database.transaction() as session:
        await session.execute(_SAVE, {"of_drive": state.drive, **values})


_SAVE: Final = (
    update(PROOFS)
    .where(_OF_DRIVE)
    .values(
        {
            name: bindparam(f"new_{name}", type_=PROOFS.c[name].type)
            for name in ("made_at", "took_ms", "reply", "differences", "minor_units", "currency")
        }
        | {"asked_at": None}
    )
)


async def withdraw(database: Database, drive_id: str) -> None:
    """Ask no longer for the audit of a drive, which cannot be made."""
    async with database.transaction() as session:
        await session.execute(update(PROOFS).where(_OF_DRIVE).values(asked_at=None), {"of_drive": drive_id})


async def found_in_all(database: Database) -> dict[str, tuple[int, int]]:
    """By currency, the differences and minor units that the newest audits of all drives found."""
    async with database.reading() as session:
        rows = (await session.execute(_FOUND)).all()
    return {row[0]: (int(row[1]), int(row[2])) for row in rows}


_FOUND: Final = (
    select(PROOFS.c.currency, func.sum(PROOFS.c.differences), func.sum(PROOFS.c.minor_units))
    .where(PROOFS.c.currency.is_not(None))
    .group_by(PROOFS.c.currency)
)


async def swept_to(database: Database) -> datetime | None:
    """The time up to which Stripe's lists were compared with the facts; None before the first sweep."""
    async with database.reading() as session:
        rows = (await session.execute(select(SWEEPS.c.name, SWEEPS.c.swept_to))).all()
    swept = {name: at for name, at in rows if name in SWEPT and at is not None}
    return min(swept.values()) if len(swept) == len(SWEPT) else None


def reply_of(drive: KnownDrive, state: AuditState, swept: datetime | None) -> dict[str, Any]:
    """An audit as `GET /v1/drives/{drive}/audit` shows it."""
    own = state.of(None)
    return {
        "drive": drive.id,
        "slug": drive.slug,
        "currency": drive.currency,
        **_amounts(own, drive.currency),
        "other_currencies": [
            {"currency": currency, **_amounts(sums, currency)}
            for currency, sums in sorted(state.sums.items())
            if currency != drive.currency
        ],
        "differences": state.found,
        "payments": state.payments,
        "settled": state.settled,
        "in_transit": len(state.in_transit) + state.more_in_transit,
        "epoch": state.log.epoch,
        "sequence": state.log.sequence,
        "head_hash": state.log.hash,
        "log_verified": state.log.verified,
        "processor_compared_to": swept and rfc3339(swept),
        "as_of": rfc3339(state.as_of),
    }


def _amounts(sums: Sums, currency: str) -> dict[str, Any]:
    return {name: as_json(units, currency) for name, units in asdict(sums).items()}
