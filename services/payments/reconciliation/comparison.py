"""The differences between Stripe's lists and the stored facts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final, Literal

from sqlalchemy import bindparam, select

from backbone.database.transaction import Transaction
from services.payments.domain import FactKind, Observation, merge
from services.payments.processor import ListedFact
from services.payments.recording.rows import StoredFact, read_facts
from services.payments.tables import WEBHOOKS

Difference = Literal["missing", "changed"]

PAGE: Final = 500
"""Webhooks searched at once: some MiB, a few milliseconds."""
_BODIES: Final = (
    select(WEBHOOKS.c.number, WEBHOOKS.c.body)
    .where(WEBHOOKS.c.number >= bindparam("since"))
    .order_by(WEBHOOKS.c.number)
    .limit(bindparam("page"))
)


async def find_differences(
    session: Transaction, facts: Sequence[ListedFact], *, hold_foreign: bool
) -> list[tuple[Observation, Difference]]:
    """The listed objects of ours that differ from the stored facts, each as missing or changed.

    An object is ours where it is marked (`marks.is_marked`), where the capture of its payment intent is
    stored, or in any case with `hold_foreign`.
    """
    intents = {fact.observation.intent for fact in facts if fact.observation.intent}
    known = await read_facts(session, intents=intents)
    captured = {
        each.observation.intent for each in known.values() if each.observation.kind is FactKind.CAPTURE
    }
    news: dict[str, tuple[Observation, Difference]] = {}
    for fact in facts:
        if not (fact.ours or hold_foreign) and fact.observation.intent not in captured:
            continue
        for observation in _observations(fact, captured):
            if (found := _compared(observation, known.get(observation.id))) is not None:
                news[observation.id] = found
    return list(news.values())


async def unnamed_by_webhooks(session: Transaction, objects: Collection[str], since: int) -> set[str]:
    """Those Stripe ids that no stored webhook from this number on contains."""
    unnamed = set(objects)
    while unnamed:
        page = (await session.execute(_BODIES, {"since": since, "page": PAGE})).all()
        bodies = b"\n".join(row.body for row in page)
        unnamed = {one for one in unnamed if one.encode() not in bodies}
        if len(page) < PAGE:
            break
        since = page[-1].number + 1
    return unnamed


def _observations(fact: ListedFact, captured: Iterable[str | None]) -> list[Observation]:
    """The observation of a listed fact, preceded by its capture where that is not stored."""
    if fact.capture is not None and fact.capture.intent not in captured:
        return [fact.capture, fact.observation]
    return [fact.observation]


def _compared(observation: Observation, known: StoredFact | None) -> tuple[Observation, Difference] | None:
    """An observation and how it differs; None where the stored fact agrees about the money."""
    if known is None:
        return observation, "missing"
    stored = known.observation
    merged = merge(stored, observation)
    if observation.kind is FactKind.CAPTURE:
        # A list contains the intent's creation time, not its capture's: the stored time is better.
        return (replace(observation, at=stored.at), "changed") if merged.units != stored.units else None
    return (observation, "changed") if _about_money(merged) != _about_money(stored) else None


def _about_money(observation: Observation) -> tuple[object, ...]:
    """The fields of a fact that decide how much of it counts."""
    return (
        observation.rank, observation.units, observation.withdrawn, observation.returned,
        observation.settled_in, observation.torn
    )  # fmt: skip
