"""Matching in the transaction that restates payments: pools locked, shares stored, posted and announced.

The payments are locked before their pools (`statements.lock_payments`), and pools in the order of their
numbers, so that transactions with gifts of several drives do not deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import bindparam, select, union_all, update

from backbone.contracts.payments import MatchingPoolChanged
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.ids import CreatorId, DriveId, MatchingPoolId
from backbone.money import Money
from services.payments.matching.domain import Allocation, Change, Gift, Pool, rematch
from services.payments.matching.ratio import ratio_text
from services.payments.matching.tables import ALLOCATIONS, COUNTED_BEFORE, POOL_COLUMNS, POOLS
from services.payments.recording import ledger
from services.payments.recording.ledger import NewPosting
from services.payments.recording.rows import PaymentRow
from services.payments.statements import insert_new, upsert


class Matched(NamedTuple):
    """What a restatement has to post, each with its payment's and drive's id, and to announce."""

    postings: Sequence[tuple[NewPosting, str, str]] = ()
    events: Sequence[MatchingPoolChanged] = ()


def counted_net(row: PaymentRow) -> int | None:
    """What is left of a payment, in its drive's currency; None unless it counts in its drive."""
    if row.captured <= 0 or row.held:
        return None
    reporting = row.reporting
    return row.captured - row.refunded - row.disputed if reporting is None else reporting.net


def gift_of(row: PaymentRow, before: int | None) -> Iterator[Gift]:
    """The gift that a changed payment is, if it counts or did before; `before` was its `counted_net`."""
    after = counted_net(row)
    if row.captured_at is not None and (before, after) != (None, None):
        is_new = before is None
        yield Gift(row.id, row.drive_id, row.creator_id, row.captured_at, before, after, is_new)


async def match_gifts(session: Transaction, gifts: Sequence[Gift], at: datetime) -> Matched:
    """Match gifts anew after they changed; their payments are locked.

    Without a pool in their drives it takes one statement, which reads two indexes.
    """
    if not gifts:
        return _NOTHING
    await _note_ceased(session, gifts)
    pools = await _lock_pools(session, gifts)
    if not pools:
        return _NOTHING
    known = await _read_allocations(session, [gift.payment_id for gift in gifts])
    changes = rematch(pools, known, await _without_released(session, gifts))
    if changes:
        keep = upsert(session, ALLOCATIONS, ("payment_id", "pool_id"), ("units", "postings"))
        await session.execute(keep, [_values(change.allocation) for change in changes])
    changed = {change.pool.id: change.pool for change in changes}
    await _store_used(session, changed.values())
    return Matched(
        [posting for change in changes for posting in _postings(change)],
        [announcement(pool, at) for pool in sorted(changed.values(), key=lambda one: one.number)],
    )


_NOTHING: Final = Matched()

_ALLOCATION_COLUMNS: Final = tuple(ALLOCATIONS.c[each.name] for each in fields(Allocation))

_CONCERNED: Final = union_all(
    select(POOLS.c.id).where(one_of(POOLS.c.drive_id, "drives")),
    select(ALLOCATIONS.c.pool_id).where(one_of(ALLOCATIONS.c.payment_id, "payments")),
)
_LOCK_POOLS: Final = (
    select(*POOL_COLUMNS).where(one_of(POOLS.c.id, "pools")).order_by(POOLS.c.number).with_for_update()
)
_READ_COUNTED_BEFORE: Final = select(COUNTED_BEFORE).where(one_of(COUNTED_BEFORE.c.payment_id, "payments"))
_READ_ALLOCATIONS: Final = select(*_ALLOCATION_COLUMNS).where(one_of(ALLOCATIONS.c.payment_id, "payments"))


async def _lock_pools(session: Transaction, gifts: Sequence[Gift]) -> list[Pool]:
    """The pools of the gifts' drives, and those that gave to them, locked in the order of their numbers.

    They are found first and locked by a statement of their own: after PostgreSQL waited for a row that was
    changed meanwhile, it checks the condition again and can lose rows that a subquery found.
    """
    values = {"drives": {gift.drive_id for gift in gifts}, "payments": [gift.payment_id for gift in gifts]}
    found = {row.id for row in await session.execute(_CONCERNED, values)}
    if not found:
        return []
    return [Pool(*row) for row in await session.execute(_LOCK_POOLS, {"pools": found})]


async def _note_ceased(session: Transaction, gifts: Sequence[Gift]) -> None:
    """Note which payments counted and are held now: released, they are not matched as new gifts."""
    rows = [
        {"payment_id": gift.payment_id, "drive_id": gift.drive_id} for gift in gifts if gift.after is None
    ]
    if rows:
        await session.execute(insert_new(session, COUNTED_BEFORE), rows)


async def _without_released(session: Transaction, gifts: Sequence[Gift]) -> list[Gift]:
    """The gifts; those that counted in their drives before are not new."""
    new = [gift.payment_id for gift in gifts if gift.is_new]
    if not new:
        return list(gifts)
    rows = await session.execute(_READ_COUNTED_BEFORE, {"payments": new})
    before = {(row.payment_id, row.drive_id) for row in rows}
    return [
        gift._replace(is_new=gift.is_new and (gift.payment_id, gift.drive_id) not in before) for gift in gifts
    ]


async def _read_allocations(session: Transaction, payments: Collection[str]) -> list[Allocation]:
    rows = await session.execute(_READ_ALLOCATIONS, {"payments": payments})
    return [Allocation(*row) for row in rows]


def _values(allocation: Allocation) -> dict[str, object]:
    return {each.name: getattr(allocation, each.name) for each in fields(Allocation)}


async def _store_used(session: Transaction, pools: Iterable[Pool]) -> None:
    rows = []
    for pool in pools:
        pool.version += 1
        rows.append({"of_id": pool.id, "to_used": pool.used, "to_version": pool.version})
    if rows:
        await session.execute(_STORE_USED, rows)


_STORE_USED: Final = (
    update(POOLS)
    .where(POOLS.c.id == bindparam("of_id"))
    .values(used=bindparam("to_used"), version=bindparam("to_version"))
)


def _postings(change: Change) -> Iterable[tuple[NewPosting, str, str]]:
    """One posting: what the sponsor owes more to the drive, or less."""
    pool, allocation, units = change
    debit, credit = ledger.MATCHING_RECEIVABLE, ledger.RAISED
    if units < 0:
        debit, credit = credit, debit
    cause = f"{pool.id}/{allocation.payment_id}#{allocation.postings}"
    yield (
        NewPosting(debit, credit, abs(units), pool.currency, cause),
        allocation.payment_id,
        pool.drive_id,
    )


def announcement(pool: Pool, at: datetime) -> MatchingPoolChanged:
    """The event with the pool's state."""
    return MatchingPoolChanged(
        pool_id=MatchingPoolId(pool.id),
        drive_id=DriveId(pool.drive_id),
        version=pool.version,
        sponsor=pool.sponsor,
        cap=Money(pool.cap, pool.currency),
        used=Money(pool.used, pool.currency),
        ratio=ratio_text(pool.ratio),
        creator_id=None if pool.creator_id is None else CreatorId(pool.creator_id),
        starts_at=pool.starts_at,
        ends_at=pool.ends_at,
        ended_at=pool.ended_at,
        changed_at=at,
    )
