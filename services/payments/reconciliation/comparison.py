"""What Stripe's lists say beyond our facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.domain import FactKind, Observation, merge
from services.payments.processor import ListedFact
from services.payments.recording.record import StoredFact, read_facts
from services.payments.tables import FACTS

Difference = Literal["missing", "changed"]


async def find_differences(
    session: AsyncSession, facts: Sequence[ListedFact], *, hold_foreign: bool
) -> list[tuple[Observation, Difference]]:
    """What is ours and says more than our facts do: each finding, and whether it was missing or changed.

    Ours is what names us, and what belongs to a payment intent whose capture we know; everything where
    `hold_foreign`.
    """
    intents = {fact.observation.intent for fact in facts if fact.observation.intent}
    known = await read_facts(session, FACTS.c.intent.in_(intents)) if intents else {}
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


def _observations(fact: ListedFact, captured: Iterable[str | None]) -> list[Observation]:
    """A fact, and before it the capture it belongs to where that is not known."""
    if fact.capture is not None and fact.capture.intent not in captured:
        return [fact.capture, fact.observation]
    return [fact.observation]


def _compared(observation: Observation, known: StoredFact | None) -> tuple[Observation, Difference] | None:
    """A finding with what is new about it; None where the stored fact says the same about the money."""
    if known is None:
        return observation, "missing"
    stored = known.observation
    merged = merge(stored, observation)
    if observation.kind is FactKind.CAPTURE:
        # A list tells an intent's creation, not its capture: the moment stored is the better one.
        return (replace(observation, at=stored.at), "changed") if merged.units != stored.units else None
    return (observation, "changed") if _about_money(merged) != _about_money(stored) else None


def _about_money(observation: Observation) -> tuple[object, ...]:
    """What a fact says that decides how much of it counts."""
    return (
        observation.rank, observation.units, observation.withdrawn, observation.returned,
        observation.settled_in, observation.torn
    )  # fmt: skip
