"""A crowd that is the same each time, with something of everything in it."""

from collections import Counter

from rehearsal.curve import winter
from rehearsal.gifts import CREATORS, DISPUTED_CARD, GOOD_CARD, After, Crowd

PLAN = winter(2_250, 40.0, seed=1)


def test_the_same_number_is_the_same_donor() -> None:
    assert Crowd(PLAN, 1, "run").intention(17) == Crowd(PLAN, 1, "run").intention(17)
    assert Crowd(PLAN, 2, "run").intention(17).body != Crowd(PLAN, 1, "run").intention(17).body


def test_every_key_is_its_own() -> None:
    keys = [intention.key for intention in map(Crowd(PLAN, 1, "run").intention, range(5_000))]
    assert len(set(keys)) == 5_000


def test_even_a_short_curve_has_a_dispute_and_every_kind_of_refund() -> None:
    crowd = Crowd(winter(10, 1.0, seed=1), 1, "run")
    after = Counter(crowd.intention(number).after for number in range(10))

    assert {After.DISPUTE, After.REFUND, After.PARTIAL_REFUND, After.FAILED_REFUND} <= set(after)


def test_what_is_to_be_refunded_or_disputed_is_paid_first_time() -> None:
    for intention in map(Crowd(PLAN, 1, "run").intention, range(5_000)):
        if intention.after is not After.NOTHING:
            assert not intention.abandons
            assert len(intention.cards) == 1
        if intention.after is After.DISPUTE:
            assert intention.cards == (DISPUTED_CARD,)
        assert intention.abandons or intention.cards[-1] == GOOD_CARD or intention.after is not After.NOTHING
        assert intention.refund_cents is None or 0 < intention.refund_cents < intention.amount_cents


def test_creators_are_unequally_popular_and_all_known() -> None:
    chosen = Counter(i.body.get("creator") for i in map(Crowd(PLAN, 1, "run").intention, range(3_000)))
    known = [slug for slug, _ in CREATORS]

    assert set(chosen) <= {None, *known}
    assert chosen[known[0]] > 4 * chosen[known[-1]]


def test_some_donors_give_again_some_stay_anonymous_and_both_languages_are_spoken() -> None:
    donors = [i.body.get("donor", {}) for i in map(Crowd(PLAN, 1, "run").intention, range(3_000))]
    emails = Counter(donor["email"] for donor in donors if "email" in donor)

    assert any(times > 1 for times in emails.values())
    assert all(email.endswith("@example.org") for email in emails)
    assert any(donor.get("anonymous") for donor in donors)
    assert {"ar", "en"} <= {donor.get("locale") for donor in donors}


def test_the_institution_has_a_name_and_its_gift_is_left_in_peace() -> None:
    crowd = Crowd(PLAN, 1, "run")
    for place in PLAN.institutions:
        intention = crowd.intention(place)
        assert intention.after is After.NOTHING
        assert not intention.abandons
        assert intention.body["donor"]["name"] in ("The Winter Foundation", "A friend of winter")
