"""The ledger follows the facts through immutable postings only."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain import FactKind
from services.payments.recording.ledger import CLEARING, PostedAmount, difference

MOVES = st.lists(st.tuples(st.integers(0, 10**12), st.sampled_from(["drive_raised", "held"])), max_size=12)


@given(MOVES)
def test_postings_add_up_to_the_facts_and_each_cause_is_used_once(moves: list[tuple[int, str]]) -> None:
    posted_amount, balances, causes = PostedAmount(0, "", 0), Counter[str](), list[str]()
    for units, account in moves:
        entries, posted_amount = difference("pi_1", FactKind.CAPTURE, "USD", posted_amount, units, account)
        for entry in entries:
            assert entry.units > 0
            balances[entry.debit] += entry.units
            balances[entry.credit] -= entry.units
            causes.append(entry.cause)
        assert balances[CLEARING] == units
        assert balances[account] == -units
    assert len(causes) == len(set(causes))
    assert sum(balances.values()) == 0


def test_a_failed_refund_posts_the_opposite_of_the_refund() -> None:
    (taken,), posted_amount = difference(
        "re_1", FactKind.REFUND, "USD", PostedAmount(0, "", 0), 500, "refunds"
    )
    (back,), _ = difference("re_1", FactKind.REFUND, "USD", posted_amount, 0, "refunds")
    assert (taken.debit, taken.credit) == ("refunds", CLEARING)
    assert (back.debit, back.credit, back.units) == (CLEARING, "refunds", 500)


def test_an_unchanged_amount_is_not_posted_again() -> None:
    entries, _ = difference("re_1", FactKind.REFUND, "USD", PostedAmount(500, "refunds", 1), 500, "refunds")
    assert entries == []
