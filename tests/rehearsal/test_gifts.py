"""Planned donations are deterministic and contain every outcome."""

from collections import Counter

from rehearsal.curve import winter
from rehearsal.gifts import CREATORS, DISPUTED_CARD, GOOD_CARD, GiftPlanner, Outcome

PLAN = winter(2_250, 40.0, seed=1)


def test_planned_gift_is_determined_by_seed_and_number() -> None:
    assert GiftPlanner(PLAN, 1, "run").planned_gift(17) == GiftPlanner(PLAN, 1, "run").planned_gift(17)
    assert (
        GiftPlanner(PLAN, 2, "run").planned_gift(17).body != GiftPlanner(PLAN, 1, "run").planned_gift(17).body
    )


def test_idempotency_keys_are_unique() -> None:
    keys = [planned_gift.key for planned_gift in map(GiftPlanner(PLAN, 1, "run").planned_gift, range(5_000))]
    assert len(set(keys)) == 5_000


def test_short_curve_has_a_dispute_and_every_kind_of_refund() -> None:
    planner = GiftPlanner(winter(10, 1.0, seed=1), 1, "run")
    outcome = Counter(planner.planned_gift(number).outcome for number in range(10))

    assert {Outcome.DISPUTE, Outcome.REFUND, Outcome.PARTIAL_REFUND, Outcome.FAILED_REFUND} <= set(outcome)


def test_gift_with_an_outcome_is_paid_with_its_first_card() -> None:
    for planned_gift in map(GiftPlanner(PLAN, 1, "run").planned_gift, range(5_000)):
        if planned_gift.outcome is not Outcome.NOTHING:
            assert not planned_gift.abandons
            assert len(planned_gift.cards) == 1
        if planned_gift.outcome is Outcome.DISPUTE:
            assert planned_gift.cards == (DISPUTED_CARD,)
        assert (
            planned_gift.abandons
            or planned_gift.cards[-1] == GOOD_CARD
            or planned_gift.outcome is not Outcome.NOTHING
        )
        assert planned_gift.refund_cents is None or 0 < planned_gift.refund_cents < planned_gift.amount_cents


def test_creators_are_known_and_differ_in_popularity() -> None:
    chosen = Counter(
        i.body.get("creator") for i in map(GiftPlanner(PLAN, 1, "run").planned_gift, range(3_000))
    )
    known = [slug for slug, _ in CREATORS]

    assert set(chosen) <= {None, *known}
    assert chosen[known[0]] > 4 * chosen[known[-1]]


def test_donors_repeat_stay_anonymous_and_use_both_languages() -> None:
    donors = [i.body.get("donor", {}) for i in map(GiftPlanner(PLAN, 1, "run").planned_gift, range(3_000))]
    emails = Counter(donor["email"] for donor in donors if "email" in donor)

    assert any(times > 1 for times in emails.values())
    assert all(email.endswith("@example.org") for email in emails)
    assert any(donor.get("anonymous") for donor in donors)
    assert {"ar", "en"} <= {donor.get("locale") for donor in donors}


def test_institutions_donation_is_named_and_has_no_outcome() -> None:
    planner = GiftPlanner(PLAN, 1, "run")
    for position in PLAN.institutions:
        planned_gift = planner.planned_gift(position)
        assert planned_gift.outcome is Outcome.NOTHING
        assert not planned_gift.abandons
        assert planned_gift.body["donor"]["name"] in ("The Winter Foundation", "A friend of winter")
