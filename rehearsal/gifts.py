"""Planned donations and their outcomes: deterministic for a seed and a number."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from rehearsal.amounts import LARGEST_GIFT_CENTS, as_money
from rehearsal.curve import Plan

GOOD_CARD: Final = "4242424242424242"
DECLINED_CARD: Final = "4000000000000002"
DISPUTED_CARD: Final = "4000000000000259"
REFUND_FAILS_CARD: Final = "4000000000005126"
"""Stripe's test cards (https://docs.stripe.com/testing), as the sandbox implements them."""

CREATORS: Final = (
    ("noor-live", "Noor Live"),
    ("abu-flah", "ليالي الشتاء"),
    ("sami-plays", "Sami Plays"),
    ("layla-cooks", "مطبخ ليلى"),
    ("omar-tech", "Omar Tech"),
    ("hala-travels", "هالة تسافر"),
    ("basel-fc", "Basel FC"),
    ("rima-reads", "ريما تقرأ"),
    ("zain-music", "Zain Music"),
    ("dana-draws", "دانا ترسم"),
    ("tariq-chess", "Tariq Chess"),
    ("mona-science", "منى والعلوم"),
)
"""Slug and name, most popular first."""

_POPULARITY: Final = tuple(1 / (rank + 1) ** 1.2 for rank in range(len(CREATORS)))
_FIRST_NAMES_EN: Final = (
    "Amal",
    "Ben",
    "Clara",
    "Daniel",
    "Elif",
    "Farah",
    "Grace",
    "Hana",
    "Idris",
    "Jonas",
)
_FIRST_NAMES_AR: Final = ("أحمد", "فاطمة", "خالد", "مريم", "يوسف", "سارة", "عمر", "نور", "علي", "هدى")
_LAST_NAMES_EN: Final = ("Haddad", "Okafor", "Silva", "Novak", "Rahman", "Berg", "Costa", "Meyer")
_LAST_NAMES_AR: Final = ("الأحمد", "حداد", "المصري", "العلي", "درويش", "الخطيب", "منصور", "السيد")
_MESSAGES_EN: Final = (
    "Stay warm!",
    "From our family to yours",
    "For every child who is cold tonight",
    "Keep going, we are watching from Lisbon",
    "Small, but with love",
)
_MESSAGES_AR: Final = (
    "الله يدفي قلوبكم",
    "من القلب إلى القلب",
    "شتاء دافئ للجميع",
    "قليل دائم خير من كثير منقطع",
    "بارك الله فيكم",
)
_PLATFORMS: Final = ("youtube", "twitch", "tiktok", "instagram")


class Outcome(StrEnum):
    """What happens to a donation after it is paid."""

    NOTHING = "nothing"
    REFUND = "refund"
    PARTIAL_REFUND = "partial_refund"
    FAILED_REFUND = "failed_refund"
    DISPUTE = "dispute"


@dataclass(frozen=True, slots=True)
class PlannedGift:
    """One planned donation, to be made exactly once.

    `key` is its Idempotency-Key, `body` the pledge request; the `cards` are tried in order.
    """

    number: int
    key: str
    amount_cents: int
    body: Mapping[str, Any]
    cards: tuple[str, ...]
    outcome: Outcome
    abandons: bool
    publishable: bool

    @property
    def refund_cents(self) -> int | None:
        """The amount of the planned refund; None for a full refund."""
        return self.amount_cents // 2 if self.outcome is Outcome.PARTIAL_REFUND else None


class GiftPlanner:
    """Plans the donations of a rehearsal: `planned_gift(n)` for any n from 0."""

    def __init__(self, plan: Plan, seed: int, run: str) -> None:
        self._plan = plan
        self._seed = seed
        self._run = run
        self._scripted_outcomes = _scripted_outcomes(len(plan.arrivals), plan.institutions)

    def planned_gift(self, number: int) -> PlannedGift:
        """Donation number n, from 0: those of the curve first, then those of the rush."""
        rng = random.Random(self._seed * 1_000_003 + number)  # noqa: S311 - a script, not a secret
        on_curve = number < len(self._plan.arrivals)
        amount = self._plan.arrivals[number].amount_cents if on_curve else self._plan.rush_size(rng)
        institution = on_curve and number in self._plan.institutions
        outcome = self._scripted_outcomes.get(number) or (
            Outcome.NOTHING if institution else _random_outcome(rng, amount)
        )
        scripted = institution or outcome is not Outcome.NOTHING
        abandons = not scripted and rng.random() < 0.03
        return PlannedGift(
            number=number,
            key=f"{self._run}-{number}",
            amount_cents=amount,
            body=self._body(number, amount, institution, rng),
            cards=_cards(outcome, declined=not scripted and rng.random() < 0.06),
            outcome=outcome,
            abandons=abandons,
            publishable=not scripted and rng.random() < 0.02,
        )

    def _body(self, number: int, amount: int, institution: bool, rng: random.Random) -> dict[str, Any]:
        body: dict[str, Any] = {"amount": as_money(amount), "reference": f"{self._run}-{number}"}
        if institution:
            large = amount == LARGEST_GIFT_CENTS
            name = "The Winter Foundation" if large else "A friend of winter"
            return body | {"donor": {"name": name, "locale": "en"}, "message": "For the whole camp"}
        arabic = rng.random() < 0.6
        if rng.random() < 0.85:
            body["creator"] = rng.choices(CREATORS, _POPULARITY)[0][0]
        if rng.random() < 0.93:
            body["donor"] = _donor(number, arabic, rng)
        if rng.random() < 0.25:
            body["message"] = rng.choice(_MESSAGES_AR if arabic else _MESSAGES_EN)
        if rng.random() < 0.7:
            body["source"] = {"platform": rng.choice(_PLATFORMS), "campaign": "winter-stream"}
        return body


def _donor(number: int, arabic: bool, rng: random.Random) -> dict[str, Any]:
    """A donor with a name and usually an e-mail address; about one in twelve has donated before."""
    person = rng.randrange(number) if number and rng.random() < 0.08 else number
    if rng.random() < 0.08:
        return {"anonymous": True, "locale": "ar" if arabic else "en"}
    first, last = (_FIRST_NAMES_AR, _LAST_NAMES_AR) if arabic else (_FIRST_NAMES_EN, _LAST_NAMES_EN)
    donor = {"name": f"{rng.choice(first)} {rng.choice(last)}", "locale": "ar" if arabic else "en"}
    return donor | ({"email": f"donor-{person}@example.org"} if rng.random() < 0.8 else {})


def _random_outcome(rng: random.Random, amount: int) -> Outcome:
    """A few ordinary donations are refunded or disputed; very small ones are not."""
    if amount < 200:
        return Outcome.NOTHING
    choices = (Outcome.NOTHING, Outcome.REFUND, Outcome.PARTIAL_REFUND, Outcome.DISPUTE)
    return rng.choices(choices, (0.9785, 0.01, 0.01, 0.0015))[0]


def _scripted_outcomes(gifts: int, taken: frozenset[int]) -> dict[int, Outcome]:
    """Positions on the curve with a fixed outcome, so that even a short rehearsal has every outcome."""
    scripted: dict[int, Outcome] = {}
    outcomes = (Outcome.DISPUTE, Outcome.REFUND, Outcome.PARTIAL_REFUND, Outcome.FAILED_REFUND)
    for outcome, part in zip(outcomes, (0.1, 0.2, 0.3, 0.4), strict=True):
        position = int(gifts * part)
        while position < gifts and (position in taken or position in scripted):
            position += 1
        if position < gifts:
            scripted[position] = outcome
    return scripted


def _cards(outcome: Outcome, declined: bool) -> tuple[str, ...]:
    if outcome is Outcome.DISPUTE:
        return (DISPUTED_CARD,)
    if outcome is Outcome.FAILED_REFUND:
        return (REFUND_FAILS_CARD,)
    return (DECLINED_CARD, GOOD_CARD) if declined else (GOOD_CARD,)
