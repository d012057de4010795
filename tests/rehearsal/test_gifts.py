"""A crowd that is the same each time, with something of everything in it."""

from collections import Counter

from rehearsal.curve import winter
from rehearsal.gifts import CREATORS, DISPUTED_CARD, GOOD_CARD, GiftPlanner, Outcome

PLAN = winter(2_250, 40.0, seed=1)


def test_the_same_number_is_the_same_donor() -> None:
    assert GiftPlanner(PLAN, 1, "run").planned_gift(17) == GiftPlanner(PLAN, 1, "run").planned_gift(17)
    assert (
        GiftPlanner(PLAN, 2, "run").planned_gift(17).body != GiftPlanner(PLAN, 1, "run").planned_gift(17).body
    )


def test_every_key_is_its_own() -> None:
    keys = [planned_gift.key for planned_gift in map(GiftPlanner(PLAN, 1, "run").planned_gift, range(5_000))]
    assert len(set(keys)) == 5_000


def test_even_a_short_curve_has_a_dispute_and_every_kind_of_refund() -> None:
    planner = GiftPlanner(winter(10, 1.0, seed=1), 1, "run")
    outcome = Counter(planner.planned_gift(number).outcome for number in range(10))

    assert {Outcome.DISPUTE, Outcome.REFUND, Outcome.PARTIAL_REFUND, Outcome.FAILED_REFUND} <= set(outcome)


def test_what_is_to_be_refunded_or_disputed_is_paid_first_time() -> None:
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


def test_creators_are_unequally_popular_and_all_known() -> None:
    chosen = Counter(
        i.body.get("creator") for i in map(GiftPlanner(PLAN, 1, "run").planned_gift, range(3_000))
    )
    known = [slug for slug, _ in CREATORS]

    assert set(chosen) <= {None, *known}
    assert chosen[known[0]] > 4 * chosen[known[-1]]


def test_some_donors_give_again_some_stay_anonymous_and_both_languages_are_spoken() -> None:
    donors = [i.body.get("donor", {}) for i in map(GiftPlanner(PLAN, 1, "run").planned_gift, range(3_000))]
    emails = Counter(donor["email"] for donor in donors if "email" in donor)

    assert any(times > 1 for times in emails.values())
    assert all(email.endswith("@example.org") for email in emails)
    assert any(donor.get("anonymous") for donor in donors)
    assert {"ar", "en"} <= {donor.get("locale") for donor in donors}


def test_the_institution_has_a_name_and_its_gift_is_left_in_peace() -> None:
    planner = GiftPlanner(PLAN, 1, "run")
    for place in PLAN.institutions:
        planned_gift = planner.planned_gift(place)
        assert planned_gift.outcome is Outcome.NOTHING
        assert not planned_gift.abandons
        assert planned_gift.body["donor"]["name"] in ("The Winter Foundation", "A friend of winter")
