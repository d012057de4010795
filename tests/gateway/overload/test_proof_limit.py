"""Audits and proofs need no key: they are bounded apart from partners' reads, and give way first."""

from __future__ import annotations

import pytest

from backbone.http.problems import Overloaded
from gateway.access.limits import ConcurrencyLimit
from gateway.overload.ladder import Step
from gateway.overload.proof_limit import ProofLimit
from gateway.overload.readings import ProcessLoad, Reading
from gateway.overload.shedding import Shedding

FULL = Reading(0.0, lag_s=1.0, wait_s=1.0)


def limit_of(most: int) -> tuple[ProofLimit, Shedding]:
    pledges = ConcurrencyLimit("pledges", 1000)
    shedding = Shedding(pledges, FULL, ProcessLoad(pledges), lambda _step: None)
    return ProofLimit(ConcurrencyLimit("proofs", most), shedding), shedding


def test_more_than_the_limit_are_refused_until_one_has_left() -> None:
    limit, _ = limit_of(1)
    with limit, pytest.raises(Overloaded), limit:
        pass
    with limit, pytest.raises(Overloaded):
        limit.check()
    limit.check()


def test_they_give_way_on_the_first_step_of_the_ladder() -> None:
    limit, shedding = limit_of(10)
    for tenth in range(20):
        if shedding.step is Step.NOTHING:
            limit.check()
            shedding.observe(Reading(tenth / 10, wait_s=0.35))
    assert shedding.step is Step.RECENT
    with pytest.raises(Overloaded):
        limit.check()
    with pytest.raises(Overloaded), limit:
        pass
