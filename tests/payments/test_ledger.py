"""The ledger follows the facts by postings alone, whatever the facts did before."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain import FactKind
from services.payments.ledger import CLEARING, Standing, difference

MOVES = st.lists(st.tuples(st.integers(0, 10**12), st.sampled_from(["drive_raised", "held"])), max_size=12)


@given(MOVES)
def test_postings_end_where_the_facts_are_and_each_cause_is_used_once(moves: list[tuple[int, str]]) -> None:
    standing, balances, causes = Standing(0, "", 0), Counter[str](), list[str]()
    for units, account in moves:
        entries, standing = difference("pi_1", FactKind.CAPTURE, "USD", standing, units, account)
        for entry in entries:
            assert entry.units > 0
            balances[entry.debit] += entry.units
            balances[entry.credit] -= entry.units
            causes.append(entry.cause)
        assert balances[CLEARING] == units
        assert balances[account] == -units
    assert len(causes) == len(set(causes))
    assert sum(balances.values()) == 0


def test_a_refund_takes_from_clearing_and_its_failure_gives_back() -> None:
    (taken,), standing = difference("re_1", FactKind.REFUND, "USD", Standing(0, "", 0), 500, "refunds")
    (back,), _ = difference("re_1", FactKind.REFUND, "USD", standing, 0, "refunds")
    assert (taken.debit, taken.credit) == ("refunds", CLEARING)
    assert (back.debit, back.credit, back.units) == (CLEARING, "refunds", 500)


def test_what_stands_already_is_not_posted_again() -> None:
    entries, _ = difference("re_1", FactKind.REFUND, "USD", Standing(500, "refunds", 1), 500, "refunds")
    assert entries == []
