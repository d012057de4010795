"""What Stripe's lists say beyond our facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from services.payments.commands import BookedFact, read_facts
from services.payments.domain import FactKind, Finding, merge
from services.payments.processor import ListedFact
from services.payments.tables import FACTS

Why = Literal["missing", "changed"]


async def news_in(
    session: AsyncSession, facts: Sequence[ListedFact], *, hold_foreign: bool
) -> list[tuple[Finding, Why]]:
    """What is ours and says more than our facts do: each finding, and whether it was missing or changed.

    Ours is what names us, and what belongs to a payment intent whose capture we know; everything where
    `hold_foreign`.
    """
    intents = {fact.finding.intent for fact in facts if fact.finding.intent}
    known = await read_facts(session, FACTS.c.intent.in_(intents)) if intents else {}
    captured = {each.finding.intent for each in known.values() if each.finding.kind is FactKind.CAPTURE}
    news: dict[str, tuple[Finding, Why]] = {}
    for fact in facts:
        if not (fact.ours or hold_foreign) and fact.finding.intent not in captured:
            continue
        for finding in _findings(fact, captured):
            if (found := _compared(finding, known.get(finding.id))) is not None:
                news[finding.id] = found
    return list(news.values())


def _findings(fact: ListedFact, captured: Iterable[str | None]) -> list[Finding]:
    """A fact, and before it the capture it belongs to where that is not known."""
    if fact.capture is not None and fact.capture.intent not in captured:
        return [fact.capture, fact.finding]
    return [fact.finding]


def _compared(finding: Finding, known: BookedFact | None) -> tuple[Finding, Why] | None:
    """A finding with what is new about it; None where the stored fact says the same about the money."""
    if known is None:
        return finding, "missing"
    stored = known.finding
    merged = merge(stored, finding)
    if finding.kind is FactKind.CAPTURE:
        # A list tells an intent's creation, not its capture: the moment stored is the better one.
        return (replace(finding, at=stored.at), "changed") if merged.units != stored.units else None
    return (finding, "changed") if _about_money(merged) != _about_money(stored) else None


def _about_money(finding: Finding) -> tuple[object, ...]:
    """What a fact says that decides how much of it counts."""
    return (
        finding.rank, finding.units, finding.withdrawn, finding.returned, finding.settled_in, finding.torn
    )  # fmt: skip
