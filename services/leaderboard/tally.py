"""Counting payments: the difference of a payment's new and stored state, added to every row it affects."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, insert

from backbone.contracts import PaymentChanged
from backbone.database.columns import microseconds
from backbone.database.plans import Tuples
from backbone.database.transaction import SyncTransaction
from services.leaderboard import domain, sequencer
from services.leaderboard.domain import NOTHING, Figures
from services.leaderboard.logged_rows import LoggedRow
from services.leaderboard.payment_rows import GivenChange, reported_by, rows_of, sizes_of
from services.leaderboard.sequencer import LockedDrive
from services.leaderboard.statements import by_id, statements
from services.leaderboard.tables import payments, superseded


class ConcurrentTally(RuntimeError):
    """Another process counted the first state of the same payment at the same time; a retry succeeds."""


class _Changes:
    """The changes a batch of payments makes to the tables other than `drives`."""

    def __init__(self) -> None:
        self.clearings: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        self.creators: dict[str, dict[str, Any]] = {}
        self.donors: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.paid: list[tuple[str, str, str]] = []
        """(pledge_id, drive_id, payment_id)"""
        self.superseded: list[dict[str, Any]] = []
        self.reached_at_stale: set[str] = set()
        """Creators who lost a donation, or of whom one now counts from another moment."""

    def credit(
        self, creator_id: str, drive_id: str, raised: int, donations: int, at: datetime | None = None
    ) -> None:
        """Add to a creator; `at` is the moment of capture of a donation that counts."""
        row = self.creators.get(creator_id)
        if row is None:
            row = self.creators[creator_id] = {
                "creator_id": creator_id, "drive_id": drive_id, "version": 0, "raised": 0, "donations": 0,
                "reached_at": None,
            }  # fmt: skip
        row["raised"] += raised
        row["donations"] += donations
        if at is not None:
            row["reached_at"] = max(row["reached_at"] or at, at)


class _PaymentRow(NamedTuple):
    """A row of `payments` as it is stored."""

    payment_id: str
    drive_id: str
    version: int
    pledge_id: str | None
    creator_id: str | None
    donor_id: str | None
    counted: bool
    currency: str
    captured: int
    refunded: int
    disputed: int
    captured_at: int
    donor_key: str | None
    source_key: str | None
    number: int
    ranked_version: int
    offline: bool
    given_captured: int | None
    given_refunded: int | None
    given_disputed: int | None


_IN_DRIVES_CURRENCY: Final = (None, None, None)


class _PaymentState(NamedTuple):
    """A state of a payment: its amounts, what of them counts, and for whom.

    `given` are the amounts in `currency`; `figures` are those in the drive's where they count.
    """

    drive_id: str
    currency: str
    creator_id: str | None
    donor_id: str | None
    donor_key: str | None
    source_key: str | None
    figures: Figures
    counted: Figures
    captured_at: datetime | None
    offline: bool
    given: Figures

    @property
    def held(self) -> int:
        """What does not count, in the currency of the gift."""
        return 0 if self.counted is self.figures else self.given.net

    @property
    def ranked(self) -> tuple[object, ...] | None:
        """What the boards sum of the payment, and where; None where it adds nothing."""
        if self.counted.net == 0:
            return None
        return (
            self.drive_id, self.counted.net, self.captured_at,
            self.creator_id, self.donor_key, self.source_key,
        )  # fmt: skip

    @property
    def reached(self) -> tuple[str, datetime | None] | None:
        """The credited creator and the moment of capture; None while the payment does not count for one."""
        is_donation = self.creator_id is not None and self.counted.net > 0
        return (self.creator_id, self.captured_at) if is_donation and self.creator_id else None


def tally_payments(transaction: SyncTransaction, events: Sequence[PaymentChanged]) -> list[LoggedRow]:
    """Add each payment's change since its stored state to its drive, with one statement per table.

    A payment that moved to another drive is removed from the old one and counted in the new one. Raises
    `ConcurrentTally`.
    """
    fresh = domain.newest(events, lambda one: one.payment_id)
    # Payments are locked before drives, because their rows name the drives. All processes use this order.
    known = by_id(transaction, payments.c.payment_id, [event.payment_id for event in fresh], lock=True)
    locked = sequencer.lock(
        transaction, [*(event.drive_id for event in fresh), *(row.drive_id for row in known.values())]
    )
    batch = _Changes()
    rows = [
        row
        for event in fresh
        if (row := _tally(event, known.get(event.payment_id), locked, batch)) is not None
    ]
    if not rows:
        return []
    if batch.superseded:
        transaction.execute(_SUPERSEDE, batch.superseded)
    _store_payments(transaction, sorted(rows), known)
    _add_to_clearings(transaction, batch)
    _credit_creators(transaction, batch)
    _count_donors(transaction, batch, locked)
    _mark_paid(transaction, batch, locked)
    read_here = {event.drive_id for event in fresh}
    changed = {drive_id for drive_id, drive in locked.items() if drive.entries or drive.changed}
    sequencer.request_publication(transaction, changed - read_here)
    return sequencer.save(transaction, locked.values())


_SUPERSEDE: Final = insert(superseded)


def _tally(
    event: PaymentChanged, old: Row[Any] | None, locked: Mapping[str, LockedDrive], batch: _Changes
) -> _PaymentRow | None:
    """The payment's new row, None if the state is not newer; its changes go to `locked` and `batch`."""
    given = Figures(event.captured.minor_units, event.refunded.minor_units, event.disputed.minor_units)
    if old is None and given == NOTHING:
        return None  # no money has moved: there is nothing a later state could be compared with
    if old is not None and old.version >= event.version:
        return None
    paid_pledge, event = event.pledge_id, _without_donor_texts(event)
    drive = locked[event.drive_id]
    currency = (event.reporting_captured or event.captured).currency
    if not event.held and drive.currency is None:
        drive.settle_currency(currency)
    counted = not event.held and currency == drive.currency
    figures = (counted and reported_by(event)) or given
    captured_at = event.captured_at or event.changed_at
    new = _PaymentState(
        event.drive_id, event.captured.currency, event.creator_id, event.donor_id,
        _donor_key(event, drive), domain.source_key(event.source),
        figures, figures if counted else NOTHING, captured_at, event.offline, given,
    )  # fmt: skip
    before = None if old is None else _state_of(old)
    _apply(event, before, new, locked, batch)
    if paid_pledge is not None and figures.captured > 0 and _pays(old, paid_pledge):
        batch.paid.append((paid_pledge, event.drive_id, event.payment_id))
    return _PaymentRow(
        event.payment_id, event.drive_id, event.version, event.pledge_id, event.creator_id, event.donor_id,
        counted, new.currency, *figures, microseconds(captured_at), new.donor_key, new.source_key,
        _number(old, before, new, locked, batch), event.version, event.offline,
        *(_IN_DRIVES_CURRENCY if figures is given else given),
    )  # fmt: skip


def _without_donor_texts(event: PaymentChanged) -> PaymentChanged:
    """The event without its pledge and its donor's name where it counts in another drive than its pledge's.

    No row of that drive then names the pledge, so its texts appear nowhere in it. The pledge is still paid.
    """
    if not event.in_other_drive:
        return event
    return event.model_copy(update={"pledge_id": None, "anonymous": None})


def _donor_key(event: PaymentChanged, drive: LockedDrive) -> str:
    """The row of the donors' board: the donor's own only if the event states that the gift is named."""
    if event.donor_id is None:
        return domain.alias_of_payment(event.payment_id)
    return event.donor_id if event.anonymous is False else drive.alias(event.donor_id)


def _number(
    old: Row[Any] | None,
    before: _PaymentState | None,
    new: _PaymentState,
    locked: Mapping[str, LockedDrive],
    batch: _Changes,
) -> int:
    """The payment's number in its drive: a new one where what the boards sum of it has changed.

    A state that is in the sums already is noted, so that it is subtracted before the new one is added.
    """
    if old is not None and old.ranked_version != old.version:
        # A process of an earlier version wrote the row. What the sums have of the payment is unknown, also
        # where the row adds the same as the new state, or nothing.
        locked[old.drive_id].sum_again()
    elif old is not None and before is not None and before.ranked is not None:
        if before.ranked == new.ranked:
            return int(old.number)
        drive = locked[before.drive_id]
        if drive.is_summed(old.number):
            drive.next_number()  # the sums lack something, also where no new state is to be added
            batch.superseded.append(
                {
                    "drive_id": before.drive_id,
                    "payment_id": old.payment_id,
                    "creator_id": before.creator_id,
                    "donor_id": before.donor_id,
                    "donor_key": before.donor_key,
                    "source_key": before.source_key,
                    "net": before.counted.net,
                    "captured_at": before.captured_at,
                }
            )
    return locked[new.drive_id].next_number() if new.counted.net else 0


def _state_of(row: Row[Any]) -> _PaymentState:
    figures = Figures(row.captured, row.refunded, row.disputed)
    given = figures
    if row.given_captured is not None:
        given = Figures(row.given_captured, row.given_refunded, row.given_disputed)
    return _PaymentState(
        row.drive_id, row.currency, row.creator_id, row.donor_id, row.donor_key, row.source_key,
        figures, figures if row.counted else NOTHING, row.captured_at, row.offline, given,
    )  # fmt: skip


def _apply(
    event: PaymentChanged,
    old: _PaymentState | None,
    new: _PaymentState,
    locked: Mapping[str, LockedDrive],
    batch: _Changes,
) -> None:
    """Add a payment's change to everything it affects."""
    was = old
    if old is not None and old.drive_id != new.drive_id:
        was = None
        _apply_to_drive(event, old, None, locked[old.drive_id])
    _apply_to_drive(event, was, new, locked[new.drive_id])
    if old is not None:
        _attribute(batch, locked[old.drive_id], old, -1)
    _attribute(batch, locked[new.drive_id], new, 1)
    if old is not None and old.reached != new.reached:
        locked[new.drive_id].changed = True  # the ranking may change although no amount did
        if old.reached is not None:
            batch.reached_at_stale.add(old.reached[0])


def _apply_to_drive(
    event: PaymentChanged, before: _PaymentState | None, after: _PaymentState | None, drive: LockedDrive
) -> None:
    """Log and add the change of what counts of a payment in a drive; None: it is not in the drive."""
    was, now = (NOTHING if one is None else one.counted for one in (before, after))
    change = now.since(was)
    given = _given(before, after)
    rows = rows_of(was, now, given, event.rate, drive.currency)
    drive.log_payment(rows, event, sizes_of(given))
    donations = int(now.net > 0) - int(was.net > 0)
    if event.offline:
        drive.add(offline=change.net, donations=donations)
    else:
        drive.add(
            captured=change.captured, refunded=change.refunded, disputed=change.disputed, donations=donations
        )
    drive.note_moment(event.changed_at)


def _given(before: _PaymentState | None, after: _PaymentState | None) -> GivenChange | None:
    """A change in the currency of the gift; None where that is the drive's."""
    states = [one for one in (before, after) if one is not None and one.given is not one.figures]
    if not states:
        return None
    was, now = (NOTHING if one is None or one.counted is NOTHING else one.given for one in (before, after))
    return GivenChange(was, now, states[-1].currency)


def _pays(old: Row[Any] | None, pledge_id: str) -> bool:
    """Whether a captured payment has not marked this pledge as paid yet."""
    return old is None or old.captured == 0 or old.pledge_id != pledge_id


def _attribute(batch: _Changes, drive: LockedDrive, state: _PaymentState, sign: int) -> None:
    """Add (`sign` 1) or remove (-1) a state of a payment in the clearing, the creator and the donor."""
    counted, held = state.counted.net, state.held
    if not state.offline:
        clearing = batch.clearings[state.drive_id, state.currency]
        clearing[0] += sign * state.given.net
        clearing[1] += sign * held
    drive.changed = drive.changed or held != 0
    is_donation = int(counted > 0)
    if state.creator_id is not None and state.counted != NOTHING:
        at = state.captured_at if is_donation and sign > 0 else None
        batch.credit(state.creator_id, state.drive_id, sign * counted, sign * is_donation, at)
    if state.donor_id is not None:
        batch.donors[state.drive_id, state.donor_id] += sign * counted
    else:
        drive.add(donors=sign * is_donation)


def _store_payments(
    transaction: SyncTransaction, rows: Sequence[_PaymentRow], known: Mapping[str, Row[Any]]
) -> None:
    """Store the payments' new rows. Raises `ConcurrentTally` if one was inserted since `known` was read.

    Locking the drive does not prevent that: states of a payment under two drives are on two partitions,
    which two processes may consume at the same time.
    """
    new = [row for row in rows if row.payment_id not in known]
    if new:
        made = transaction.execute(statements(transaction).add_payments, Tuples(_PaymentRow._fields, new))
        if made.rowcount != len(new):
            raise ConcurrentTally(f"{made.rowcount} of {len(new)} payments are new, the others concurrent")
    if kept := [row for row in rows if row.payment_id in known]:
        transaction.execute(statements(transaction).keep_payments, Tuples(_PaymentRow._fields, kept))


def _add_to_clearings(transaction: SyncTransaction, batch: _Changes) -> None:
    rows = [
        {"drive_id": drive_id, "currency": currency, "net": net, "held": held}
        for (drive_id, currency), (net, held) in sorted(batch.clearings.items())
    ]
    if rows:
        transaction.execute(statements(transaction).add_to_clearings, rows)


def _credit_creators(transaction: SyncTransaction, batch: _Changes) -> None:
    if not batch.creators:
        return
    rows = [batch.creators[one] for one in sorted(batch.creators)]
    transaction.execute(statements(transaction).credit_creators, rows)
    if batch.reached_at_stale:
        again = [{"of_creator": one} for one in sorted(batch.reached_at_stale)]
        transaction.execute(statements(transaction).recompute_reached_at, again)


def _count_donors(transaction: SyncTransaction, batch: _Changes, locked: dict[str, LockedDrive]) -> None:
    """Count a donor while the net of their payments to the drive is above 0."""
    by_drive: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for (drive_id, donor_id), net in sorted(batch.donors.items()):
        if net:
            by_drive[drive_id][donor_id] = net
    for drive_id, nets in by_drive.items():
        values = {"of_drive": drive_id, "nets": json.dumps(nets)}
        added = transaction.execute(statements(transaction).add_to_donors, values)
        counts = [int(net > 0) - int(net > nets[donor_id]) for donor_id, net in added]
        locked[drive_id].add(donors=sum(counts))


def _mark_paid(transaction: SyncTransaction, batch: _Changes, locked: dict[str, LockedDrive]) -> None:
    """Remove paid pledges from `pledged`, whichever of pledge and payment was consumed first.

    The pledge may belong to another drive than its payment. That drive is locked here and added to `locked`.
    """
    if not batch.paid:
        return
    paying = {pledge_id: (drive_id, payment_id) for pledge_id, drive_id, payment_id in batch.paid}
    rows = [
        {"pledge_id": pledge_id, "drive_id": drive_id, "version": 0, "open": False, "paid": True, "amount": 0,
         "payment_id": payment_id}
        for pledge_id, (drive_id, payment_id) in sorted(paying.items())
    ]  # fmt: skip
    opened = [row for row in transaction.execute(statements(transaction).mark_paid, rows) if row.open]
    locked |= sequencer.lock(transaction, {row.drive_id for row in opened} - locked.keys())
    for row in opened:
        locked[row.drive_id].add(pledged=-row.amount)
