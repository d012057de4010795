"""Captures through Payment Links of ours: the reference in the donor's address decides their pledge.

Anybody can open a link with any reference, or again with one that was paid. Only a reference that was signed
for this link, and whose pledge has no capture yet, gives the money to its pledge. Other money counts for the
link's drive, without a pledge or a creator, and is reported.

Only the link's Checkout Session carries the reference. A capture that an intent reports first waits for its
session: a lookup of it is stored instead, and run unless the session's event arrives before
(`reconciliation/lookups.py`). Everything here runs in its caller's transaction, which has locked the intents.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import Counter
from sqlalchemy import delete, select

from backbone import ids
from backbone.database.one_of import one_of
from backbone.database.transaction import Transaction
from services.payments.domain import NO_DRIVE, LinkCapture, Observation, ReferenceProblem
from services.payments.overflow.references import pledge_of
from services.payments.overflow.tables import LINKS
from services.payments.recording.rows import PaymentRow, read_facts
from services.payments.statements import insert_new
from services.payments.tables import LOOKUPS

SESSION: Final = "session"
"""The kind of a lookup of the session of a capture through a link."""

SESSION_AFTER: Final = timedelta(seconds=10)
"""How long such a capture waits for its session's event. Stripe sends both at once, in any order."""

log = structlog.get_logger()

_UNCREDITED: Final = Counter(
    "ataa_overflow_uncredited_total",
    "Payments through Payment Links that count for their drive without a pledge, by what was wrong with "
    "their reference.",
    ["reason"],
)
for _problem in ReferenceProblem:
    _UNCREDITED.labels(_problem)  # a series that begins with its first event shows no increase

_OBSERVED: Final = tuple(each.name for each in fields(Observation))


async def resolve_references(
    session: Transaction, observations: Sequence[Observation], at: datetime
) -> list[Observation]:
    """`observations`, with the pledge of each capture through a link; without those that wait for a session.

    Captures that are stored already keep the payment they have.
    """
    through_links = [each for each in observations if isinstance(each, LinkCapture)]
    if not through_links:
        return list(observations)
    facts = await read_facts(session, ids={each.id for each in through_links})
    told = {each.id: each for each in through_links if each.by_session and each.id not in facts}
    links = await _links(session, {each.link for each in told.values()})
    found = {each: _with_pledge(capture, links.get(capture.link)) for each, capture in told.items()}
    await _await_sessions(session, {each.id for each in through_links} - facts.keys() - told.keys(), at)
    await _settle_lookups(session, told.keys() | facts.keys())
    return [
        one
        for each in observations
        if (one := _resolved(each, found, facts.keys())) is not None
    ]  # fmt: skip


def _resolved(
    each: Observation, found: dict[str, LinkCapture], stored: Collection[str]
) -> Observation | None:
    """An observation as it is to be recorded; None where it waits for its session."""
    if not isinstance(each, LinkCapture):
        return each
    if each.id in stored:
        return Observation(**{name: getattr(each, name) for name in _OBSERVED})
    if (by_session := found.get(each.id)) is None:
        return None
    return replace(
        by_session, units=each.units, currency=each.currency, rank=each.rank, at=each.at
    )  # fmt: skip


async def _links(session: Transaction, keys: Collection[str]) -> dict[str, Any]:
    if not keys:
        return {}
    return {row.key: row for row in await session.execute(_LINKS, {"keys": sorted(keys)})}


_LINKS: Final = select(LINKS.c.key, LINKS.c.drive_id, LINKS.c.secret).where(one_of(LINKS.c.key, "keys"))


def _with_pledge(capture: LinkCapture, link: Any) -> LinkCapture:
    """A capture with the pledge that its reference names, or with what is wrong with the reference."""
    pledge = pledge_of(capture.reference, link.secret) if link and capture.reference else None
    problem = None if pledge else ReferenceProblem.BAD if capture.reference else ReferenceProblem.MISSING
    drive = link.drive_id if link else capture.drive_id
    return replace(capture, pledge_id=pledge, drive_id=drive, problem=problem)


async def _await_sessions(session: Transaction, intents: Collection[str], at: datetime) -> None:
    if intents:
        lookup = {"kind": SESSION, "tries": 0, "ask_at": at + SESSION_AFTER}
        rows = [{"intent": each} | lookup for each in sorted(intents)]
        await session.execute(insert_new(session, LOOKUPS), rows)


async def _settle_lookups(session: Transaction, intents: Collection[str]) -> None:
    if intents:
        await session.execute(_SETTLE, {"intents": sorted(intents)})


_SETTLE: Final = delete(LOOKUPS).where(one_of(LOOKUPS.c.intent, "intents"), LOOKUPS.c.kind == SESSION)


def uncredited_payment(capture: LinkCapture, first: PaymentRow | None) -> PaymentRow | None:
    """The payment, without a pledge, of a capture whose reference gives it none, and report it.

    None where its pledge is merely unknown so far. `first` is the pledge's payment; it has another capture.
    What is paid again for zakat is zakat: the reference shows that it was the same donor's link.
    """
    problem = capture.problem if first is None else ReferenceProblem.REUSED
    if problem is None:
        return None
    _UNCREDITED.labels(problem).inc()
    log.warning(
        "payment.link_uncredited", reason=problem.value, link=capture.link, intent=capture.intent,
        reference=(capture.reference or "")[:100], drive=capture.drive_id,
    )  # fmt: skip
    drive = capture.drive_id
    named = drive if drive is not None and ids.is_id(drive, "drv") else NO_DRIVE
    zakat = first is not None and first.zakat
    return PaymentRow(id=ids.new("pay"), pledge_id=None, drive_id=named, zakat=zakat)
