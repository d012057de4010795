"""Handlers of the consumed events: one ticket for each pledge, attribution and drives kept up to date."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import bindparam, case, select, text, update

from backbone import ids
from backbone.contracts.pledges import (
    DriveChanged,
    DriveState,
    PledgeChanged,
    PledgeMade,
    PledgeState,
    PledgeStatus,
)
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from backbone.messaging.consumer import Handlers
from services.payments.admission.store import read_queue
from services.payments.funds import Fund
from services.payments.recording.restate import NOT_MOVED, restate
from services.payments.recording.rows import (
    PaymentRow,
    payment_values,
    read_facts,
    read_payments,
    write_facts,
)
from services.payments.screening.record import note_clients
from services.payments.statements import insert_new, upsert
from services.payments.tables import DRIVES, HELD, PAYMENTS

HELD_BATCH: Final = 1_000
"""Payments in suspense that are restated at a time when their drive becomes known."""


async def store_drives(events: Sequence[DriveChanged], session: Transaction) -> None:
    """Store each drive's newest state, and restate its payments in suspense: their drive may match now."""
    newest = {event.drive_id: event for event in sorted(events, key=lambda event: event.version)}
    rows = [
        {"id": event.drive_id, "version": event.version, "currency": event.currency, "slug": event.slug,
         "state": event.state, "test": event.test, "partner": event.partner,
         "beneficiaries": _shares(event), "currencies": event.currencies}
        for event in newest.values()
    ]  # fmt: skip
    # Earlier versions of pledges do not send these; the stored ones are kept.
    batches: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        sent = tuple(name for name in _LATER if row[name] is not None)
        batches[("version", "currency", "slug", "state", "test", *sent)].append(row)
    for columns, batch in batches.items():
        await session.execute(upsert(session, DRIVES, ("id",), columns), batch)
    if closings := _closings(events):
        await session.execute(_SET_CLOSED_AT, closings)
    await _restate_held(session, newest.keys())


_LATER: Final = ("partner", "beneficiaries", "currencies")


def _closings(events: Sequence[DriveChanged]) -> list[dict[str, Any]]:
    """When each drive of a batch was first reported as closed."""
    closed = {
        event.drive_id: event.changed_at
        for event in sorted(events, key=lambda event: -event.version)
        if event.state == DriveState.CLOSED
    }
    return [{"of_drive": drive_id, "at": at} for drive_id, at in closed.items()]


_SET_CLOSED_AT: Final = (
    update(DRIVES)
    .where(DRIVES.c.id == bindparam("of_drive"), DRIVES.c.closed_at.is_(None))
    .values(closed_at=bindparam("at", type_=DRIVES.c.closed_at.type))
)


def _shares(event: DriveChanged) -> list[dict[str, Any]] | None:
    return None if event.beneficiaries is None else [each.model_dump() for each in event.beneficiaries]


async def _restate_held(session: Transaction, drives: Collection[str]) -> None:
    """Restate all payments in suspense of these drives, in the order of their tickets."""
    held = (
        select(PAYMENTS.c.id, PAYMENTS.c.number)
        .where(PAYMENTS.c.drive_id.in_(drives), text(HELD))
        .order_by(PAYMENTS.c.number)
        .limit(HELD_BATCH)
    )
    after = 0
    while found := (await session.execute(held.where(PAYMENTS.c.number > after))).all():
        rows = await read_payments(session, ids=[row.id for row in found])
        await _restate(session, list(rows.values()))
        after = found[-1].number


async def update_attribution(events: Sequence[PledgeState], session: Transaction) -> None:
    """Create a payment (its ticket) for each new pledge; copy a pledge's newest state into its payments.

    A capture recorded before the pledge's event has created the payment already, without attribution.
    """
    newest: dict[str, PledgeState] = {}
    for event in sorted(events, key=lambda event: event.version):
        newest[event.pledge_id] = _with_anonymity_of(event, newest.get(event.pledge_id))
    zakat = _given_as_zakat(events)
    rows = await read_payments(session, pledges=newest)
    missing = newest.keys() - {row.pledge_id for row in rows.values()}
    if missing:
        at = datetime.now(UTC)
        rate = (await read_queue(session)).estimates.rate
        tickets = [
            _ticket(event, at, rate, zakat=pledge_id in zakat)
            for pledge_id, event in newest.items()
            if pledge_id in missing
        ]
        made = await session.execute(insert_new(session, PAYMENTS), tickets)
        await note_clients(
            session, _clients(((each["id"], each["pledge_id"]) for each in tickets), events), at
        )
        if made.rowcount != len(tickets):
            rows |= await read_payments(session, pledges=missing)
    known = _clients(((row.id, row.pledge_id) for row in rows.values()), events)
    await note_clients(session, known, datetime.now(UTC))
    await _update(session, rows.values(), newest, zakat)


def _given_as_zakat(events: Iterable[PledgeState]) -> set[str]:
    """The pledges that were made as zakat."""
    made = (event for event in events if isinstance(event, PledgeMade))
    return {event.pledge_id for event in made if event.purpose == Fund.ZAKAT}


def _with_anonymity_of(event: PledgeState, earlier: PledgeState | None) -> PledgeState:
    """`event`, with `anonymous` of an earlier state of the pledge where it does not state it itself."""
    if event.anonymous is not None or earlier is None or earlier.anonymous is None:
        return event
    return event.model_copy(update={"anonymous": earlier.anonymous})


async def _update(
    session: Transaction,
    rows: Iterable[PaymentRow],
    newest: Mapping[str, PledgeState],
    zakat: Collection[str],
) -> None:
    outdated = [row for row in rows if row.pledge_version < newest[row.pledge_id or ""].version]
    changed: list[PaymentRow] = []
    same: list[PaymentRow] = []
    posted_in = {row.id: row.drive_id for row in outdated}
    for row in outdated:
        pledge_id = row.pledge_id or ""
        differs = _attribute(row, newest[pledge_id], zakat=pledge_id in zakat)
        (changed if differs else same).append(row)
    if same:
        # Most pledge changes follow from payment_changed and differ in the version only.
        versions = [{"at_id": row.id, "to_version": row.pledge_version} for row in same]
        await session.execute(_SET_PLEDGE_VERSION, versions)
    await _restate(session, changed, frozenset(row.id for row in changed), posted_in)
    statuses = {row.id: newest[row.pledge_id or ""].status for row in outdated}
    if cancelled := [each for each, status in statuses.items() if status is PledgeStatus.CANCELLED]:
        await session.execute(_CANCEL, {"ids": cancelled})


_CANCEL: Final = (
    update(PAYMENTS)
    .where(one_of(PAYMENTS.c.id, "ids"))
    .values(
        cancelled=True, checkout=case((PAYMENTS.c.checkout == "waiting", "none"), else_=PAYMENTS.c.checkout)
    )
)
"""A waiting ticket leaves the queue; an open checkout, or one being opened, is expired by checkout/expiry."""

_SET_PLEDGE_VERSION: Final = (
    update(PAYMENTS).where(PAYMENTS.c.id == bindparam("at_id")).values(pledge_version=bindparam("to_version"))
)


def _clients(payments: Iterable[tuple[str, str | None]], events: Iterable[PledgeState]) -> dict[str, str]:
    """The client of each of these payments, given with their pledges, whose pledge was made with one."""
    named: dict[str | None, str | None] = {
        event.pledge_id: event.client for event in events if isinstance(event, PledgeMade)
    }
    found = ((payment, named.get(pledge)) for payment, pledge in payments)
    return {payment: client for payment, client in found if client is not None}


def _ticket(event: PledgeState, at: datetime, rate: int, *, zakat: bool) -> dict[str, Any]:
    """The row of a new payment whose checkout is to be opened."""
    row = PaymentRow(id=ids.new("pay"), pledge_id=event.pledge_id, drive_id=event.drive_id)
    _attribute(row, event, zakat=zakat)
    row.checkout = "none" if event.status is PledgeStatus.CANCELLED else "waiting"
    return payment_values(row, at) | {"queue_rate": rate}


def _attribute(row: PaymentRow, event: PledgeState, *, zakat: bool) -> bool:
    """Copy a pledge's state into its payment; returns whether anything but the version differed.

    Whether it is `zakat` is taken from the first state and kept: money that was counted as one is not paid
    out as the other.
    """
    before = _attributes(row)
    if row.pledge_version == 0:
        row.zakat = zakat
    source = event.source
    if row.released_at is None:
        row.drive_id, row.creator_id = event.drive_id, event.creator_id
    else:  # a person decided where it counts
        row.pledged_drive, row.pledged_creator = event.drive_id, event.creator_id
    row.amount, row.currency = event.amount.minor_units, event.amount.currency
    row.donor_id, row.partner = event.donor_id, event.partner
    if event.anonymous is not None:  # stated when the pledge is made, and then no more
        row.anonymous = event.anonymous
    row.platform, row.campaign = (source.platform, source.campaign) if source else (None, None)
    row.mode, row.locale = event.checkout_mode, event.locale
    row.pledge_version = event.version
    return _attributes(row) != before


def _attributes(row: PaymentRow) -> tuple[object, ...]:
    return (
        row.drive_id, row.amount, row.currency, row.donor_id, row.creator_id, row.partner, row.platform,
        row.campaign, row.mode, row.locale, row.anonymous, row.pledged_drive, row.pledged_creator, row.zakat,
    )  # fmt: skip


async def _restate(
    session: Transaction,
    rows: Sequence[PaymentRow],
    changed: frozenset[str] = frozenset(),
    moved_from: Mapping[str, str] = NOT_MOVED,
) -> None:
    """Restate payments after their attribution or drive changed."""
    if not rows:
        return
    before = await read_facts(session, intents=[row.intent for row in rows if row.intent])
    facts = {each: replace(fact) for each, fact in before.items()}
    at = datetime.now(UTC)
    await restate(session, rows, facts, at, changed=changed, moved_from=moved_from)
    await write_facts(session, [fact for each, fact in facts.items() if fact != before[each]], at)


HANDLERS: Final[Handlers] = {
    DriveChanged: store_drives,
    PledgeMade: update_attribution,
    PledgeChanged: update_attribution,
}
