"""Reads: leaderboards, the log, books, and the comparison of stored sums with recounted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, Select, and_, bindparam, case, func, literal, or_, select

from backbone.database.transaction import Transaction, messaging_tables_of
from backbone.http.problems import NotFound, Overloaded
from backbone.money import Money, decimal_string
from services.leaderboard import hash_chain
from services.leaderboard.hash_chain import Flaw
from services.leaderboard.recounting import BY_PROCESSOR, GIVEN_NET, recount
from services.leaderboard.sums import RANKED
from services.leaderboard.tables import clearings, creators, drive_log, drives, payments

ROWS_PER_CHECK: Final = 1_000
"""Rows of a log that are read and verified together."""


class DriveHead(NamedTuple):
    """The identity and position of a drive, with which every read starts."""

    drive_id: str
    currency: str
    epoch: int
    sequence: int
    revision: int = 0
    last_number: int = 0
    summed_number: int = 0
    summed_sequence: int = 0

    def sequence_of_sums(self) -> int:
        """The sequence for which the boards' sums are exact. Raises `Overloaded` while there is none."""
        if self.last_number == self.summed_number:
            return self.sequence
        if self.summed_sequence < 0:
            raise Overloaded("This board is being counted anew.")
        return self.summed_sequence


async def find_drive(session: Transaction, ref: str) -> DriveHead | None:
    """The drive with this id or slug; None while its first DriveChanged has not been consumed."""
    row = (await session.execute(_FIND_DRIVE, {"ref": ref})).first()
    return None if row is None else DriveHead(*row)


_FIND_DRIVE: Final = (
    select(*(drives.c[name] for name in DriveHead._fields))
    .where(or_(drives.c.drive_id == bindparam("ref"), drives.c.slug == bindparam("ref")))
    .where(drives.c.version > 0)
    .order_by(drives.c.drive_id)
    .limit(1)
)


def existing(found: DriveHead | None) -> DriveHead:
    """The drive; raises `NotFound` for None."""
    if found is None:
        raise NotFound("No such drive.")
    return found


async def log_page(
    session: Transaction, drive: DriveHead, after: int, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Rows of the log after sequence `after`, and the `after` of the next page (None at the end)."""
    statement = (
        select(drive_log)
        .where(
            drive_log.c.drive_id == drive.drive_id,
            drive_log.c.epoch == drive.epoch,
            drive_log.c.sequence > after,
        )
        .order_by(drive_log.c.sequence)
        .limit(limit + 1)
    )
    rows = [_event(row) for row in await session.execute(statement)]
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], str(rows[limit - 1]["sequence"])


def _event(row: Row[Any]) -> dict[str, Any]:
    """A stored row as the API shows it; equal to `DriveLogged.as_row`."""
    about = (row.payment_id, row.pledge_id, row.creator_id)
    shown = hash_chain.public_row(
        row.sequence, row.type, row.at, *about, row.amount, row.raised_after, row.currency,
        None if row.given_amount is None else Money(row.given_amount, row.given_currency),
    )  # fmt: skip
    return {**shown, "hash": row.hash}


async def verify_log(session: Transaction, drive: DriveHead) -> Flaw | None:
    """The first flaw of a drive's whole log; None if every row is present and unchanged."""
    after, previous = 0, hash_chain.FIRST_HASH
    while True:
        rows, _ = await log_page(session, drive, after, ROWS_PER_CHECK)
        if flaw := hash_chain.verify(drive.drive_id, drive.epoch, rows, previous, after):
            return flaw
        if not rows:
            break
        after, previous = rows[-1]["sequence"], rows[-1]["hash"]
    head = select(drives.c.head_hash).where(drives.c.drive_id == drive.drive_id)
    if after != drive.sequence or previous != (await session.execute(head)).scalar_one():
        return Flaw(after, f"the log ends at {after}, its drive at {drive.sequence}")
    return None


async def books(session: Transaction) -> dict[str, str]:
    """The net of processor money per currency from the stored sums, held money included."""
    return _by_currency(await session.execute(_BOOKS))


_BOOKS: Final = select(clearings.c.currency, func.sum(clearings.c.net)).group_by(clearings.c.currency)


async def recounted_books(session: Transaction) -> dict[str, str]:
    """The same as `books`, recounted from every payment."""
    net = select(payments.c.currency, func.sum(GIVEN_NET)).where(BY_PROCESSOR).group_by(payments.c.currency)
    return _by_currency(await session.execute(net))


def _by_currency(rows: Any) -> dict[str, str]:
    # PostgreSQL sums bigints into numerics.
    return {currency: decimal_string(int(net), currency) for currency, net in sorted(map(tuple, rows))}


async def recounted(session: Transaction, drive_id: str) -> Mapping[str, int]:
    """A drive's columns, recounted from its payments, donors and pledges."""
    return await session.run_sync(recount, drive_id)


async def _count(session: Transaction, rows: Select[Any]) -> int:
    return int((await session.execute(select(func.count()).select_from(rows.subquery()))).scalar_one())


_NET: Final = payments.c.captured - payments.c.refunded - payments.c.disputed


async def _clearing_differences(session: Transaction) -> list[str]:
    """Differences between each drive's processor money, with its held part, and its payments."""
    held = func.sum(case((payments.c.counted, 0), else_=_NET))
    recounted_rows = (
        select(payments.c.drive_id, payments.c.currency, func.sum(GIVEN_NET), held)
        .where(BY_PROCESSOR)
        .group_by(payments.c.drive_id, payments.c.currency)
    )
    stored = select(clearings.c.drive_id, clearings.c.currency, clearings.c.net, clearings.c.held)
    return await _compare(session, "clearing", stored, recounted_rows)


async def _creator_differences(session: Transaction) -> list[str]:
    """Differences between each creator's amount and number of donations, and the payments."""
    gifts = func.sum(case((and_(payments.c.counted, _NET > 0), 1), else_=0))
    raised = func.sum(case((payments.c.counted, _NET), else_=0))
    recounted_rows = (
        select(payments.c.creator_id, literal("creator"), raised, gifts)
        .where(payments.c.creator_id.is_not(None))
        .group_by(payments.c.creator_id)
    )
    stored = select(creators.c.creator_id, literal("creator"), creators.c.raised, creators.c.donations)
    return await _compare(session, "creator", stored, recounted_rows)


async def _board_differences(session: Transaction) -> list[str]:
    """Differences between the sums of donors and sources, and the payments, of drives that are summed."""
    summed = select(drives.c.drive_id).where(drives.c.last_number == drives.c.summed_number)
    found: list[str] = []
    for ranked in (one for one in RANKED if one.in_all):
        name, table, key = ranked.named, ranked.table, payments.c[ranked.named]
        gifts = func.sum(case((_NET > 0, 1), else_=0))
        recounted_rows = (
            select(key, payments.c.drive_id, func.sum(_NET), gifts)
            .where(key.is_not(None), payments.c.counted, payments.c.drive_id.in_(summed))
            .group_by(key, payments.c.drive_id)
        )
        sums = ranked.key, table.c.drive_id, table.c.raised, table.c.donations
        found += await _compare(
            session, name, select(*sums).where(table.c.drive_id.in_(summed)), recounted_rows
        )
    return found


async def _compare(
    session: Transaction, name: str, stored: Select[Any], recounted_rows: Select[Any]
) -> list[str]:
    """Compare stored rows of (id, id, sum, sum) with recounted ones; a missing row has zeros."""
    was = {tuple(row[:2]): (int(row[2]), int(row[3])) for row in await session.execute(stored)}
    now = {tuple(row[:2]): (int(row[2]), int(row[3])) for row in await session.execute(recounted_rows)}
    zeros = (0, 0)
    return [
        f"{one[0]} {name} {one[1]}: {was.get(one, zeros)} kept, {now.get(one, zeros)} counted"
        for one in sorted(was.keys() | now.keys())
        if was.get(one, zeros) != now.get(one, zeros)
    ]


async def outbox_rows(session: Transaction) -> int:
    """Outbox rows not yet published."""
    return await _count(session, select(messaging_tables_of(session).outbox.c.number))


async def differences(session: Transaction) -> Sequence[str]:
    """Every stored sum and log that differs from its recount, one line each; empty if all are right."""
    found = []
    stored, recounted_rows = await books(session), await recounted_books(session)
    found += [
        f"books {currency}: {stored.get(currency)} kept, {recounted_rows.get(currency)} counted"
        for currency in sorted(stored.keys() | recounted_rows.keys())
        if stored.get(currency) != recounted_rows.get(currency)
    ]
    found += await _clearing_differences(session)
    found += await _creator_differences(session)
    found += await _board_differences(session)
    for row in (await session.execute(select(drives))).all():
        shown = row._mapping
        for name, value in (await recounted(session, row.drive_id)).items():
            if shown[name] != value:
                found.append(f"{row.drive_id} {name}: {shown[name]} kept, {value} counted")
        if row.currency is not None:
            head = DriveHead(row.drive_id, row.currency, row.epoch, row.sequence)
            if flaw := await verify_log(session, head):
                found.append(f"{row.drive_id} log at {flaw.sequence}: {flaw.reason}")
    return found
