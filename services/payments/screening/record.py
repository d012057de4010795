"""Storing the tries of cards that webhooks report, and finding the captures to hold.

Everything here runs inside its caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from prometheus_client import Counter
from sqlalchemy import Row, bindparam, case, func, select

from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.screening.domain import ALL_DRIVES, MEMORY_S, is_small, is_to_be_held
from services.payments.screening.tables import BREAKERS, CLIENTS, TRIES
from services.payments.statements import insert_new
from services.payments.stripe.events import ReportedTry
from services.payments.tables import PAYMENTS

_TRIES: Final = Counter("ataa_card_tries_total", "Cards tried, by what became of it.", ["outcome"])
DECLINE_REASONS: Final = frozenset(
    {
        "authentication_required", "call_issuer", "card_not_supported", "card_velocity_exceeded",
        "do_not_honor", "expired_card", "fraudulent", "generic_decline", "incorrect_cvc", "incorrect_number",
        "insufficient_funds", "invalid_account", "lost_card", "pickup_card", "processing_error",
        "restricted_card", "stolen_card", "transaction_not_allowed", "try_again_later",
    }
)  # fmt: skip
"""Stripe's decline codes (docs.stripe.com/declines/codes) that are counted apart."""
OTHER_REASON: Final = "other"
_DECLINES: Final = Counter(
    "ataa_card_declines_total", "Declined cards, by Stripe's decline code.", ["reason"]
)
for _reason in (*DECLINE_REASONS, OTHER_REASON):
    _DECLINES.labels(
        _reason
    )  # created at import: a series that begins with its first event shows no increase
_DECLINED, _CHARGED = (_TRIES.labels(outcome) for outcome in ("declined", "charged"))


async def note_clients(session: Transaction, clients: Mapping[str, str], at: datetime) -> None:
    """Store the clients of new payments."""
    rows = [{"payment_id": each, "client": client, "made_at": at} for each, client in clients.items()]
    if rows:
        await session.execute(insert_new(session, CLIENTS), rows)


async def store_tries(session: Transaction, tries: Sequence[ReportedTry]) -> None:
    """Store tries of cards.

    A try of a payment that is unknown here is not stored. One of an event that was stored before is not
    stored again.

    The declined ones of a batch are stored before its captures are recorded, and the charged ones after, so
    that a capture is judged by the other tries of its client.
    """
    if not tries:
        return
    places = await _places(session, {each.payment_id for each in tries})
    known = [_row(each, place) for each in tries if (place := places.get(each.payment_id)) is not None]
    if known:
        await session.execute(insert_new(session, TRIES), known)
    declined = sum(row["declined"] for row in known)
    for each in tries:
        if each.declined and each.payment_id in places:
            _DECLINES.labels(each.reason if each.reason in DECLINE_REASONS else OTHER_REASON).inc()
    _DECLINED.inc(declined)
    _CHARGED.inc(len(known) - declined)


async def find_suspected(session: Transaction, payments: Collection[str], now: datetime) -> frozenset[str]:
    """Those of these payments that look like tested cards while a breaker is open, and are to be held."""
    opened = {row.scope for row in await session.execute(_OPEN)} if payments else frozenset[str]()
    if not opened:
        return frozenset()
    places = (await _places(session, payments)).values()
    small = [place for place in places if place.client is not None and _is_small(place)]
    attacked = [place for place in small if opened & {ALL_DRIVES, place.drive_id}]
    if not attacked:
        return frozenset()
    since = now - timedelta(seconds=MEMORY_S)
    counts = await _counts(session, {place.client for place in attacked}, since)
    return frozenset(
        place.id
        for place in attacked
        if is_to_be_held(*counts.get(place.client, (0, 0)), small=True, under_attack=True)
    )


async def _places(session: Transaction, payments: Collection[str]) -> dict[str, Row[Any]]:
    """The drive, client and amount of each of these payments."""
    return {row.id: row for row in await session.execute(_PLACES, {"ids": sorted(payments)})}


def _row(one: ReportedTry, place: Row[Any]) -> dict[str, Any]:
    return {
        "event_id": one.event_id, "payment_id": one.payment_id, "drive_id": place.drive_id,
        "client": place.client, "card": one.card, "declined": one.declined, "small": _is_small(place),
        "at": one.at,
    }  # fmt: skip


def _is_small(place: Row[Any]) -> bool:
    return place.currency is not None and is_small(place.amount, place.currency)


async def _counts(
    session: Transaction, clients: Collection[str], since: datetime
) -> dict[str, tuple[int, int]]:
    """The declined and the charged tries of clients."""
    rows = await session.execute(_COUNTS, {"clients": sorted(clients), "since": since})
    return {row.client: (row.declined, row.tried - row.declined) for row in rows}


_PLACES: Final = select(
    PAYMENTS.c.id, PAYMENTS.c.drive_id, PAYMENTS.c.amount, PAYMENTS.c.currency, CLIENTS.c.client
).join_from(PAYMENTS, CLIENTS, PAYMENTS.c.id == CLIENTS.c.payment_id, isouter=True).where(
    one_of(PAYMENTS.c.id, "ids")
)  # fmt: skip
_OPEN: Final = select(BREAKERS.c.scope)
_COUNTS: Final = (
    select(
        TRIES.c.client,
        func.count().label("tried"),
        func.sum(case((TRIES.c.declined, 1), else_=0)).label("declined"),
    )
    .where(one_of(TRIES.c.client, "clients"), TRIES.c.at > bindparam("since"))
    .group_by(TRIES.c.client)
)
