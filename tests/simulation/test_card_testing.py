"""A smaller attack than that of `make bench-attack`: what passes is bounded, and donors hardly notice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulation.card_testing.drive import Attack, Outcome, Plan, SimulatedDrive

PLAN = Plan(gifts_per_s=15.0, seconds=240.0, calm_s=90.0, attack=Attack(tries=1_600, addresses=60))


def outcome(plan: Plan) -> Outcome:
    return SimulatedDrive(plan).run()


@pytest.mark.parametrize("seed", [1, 2])
def test_few_of_the_attackers_cards_pass_and_donors_give_as_before(seed: int) -> None:
    plan = replace(PLAN, seed=seed)
    calm, undefended = outcome(replace(plan, attack=None)), outcome(replace(plan, defended=False))
    attacked = outcome(plan)
    assert undefended.tries == attacked.tries == 1_600
    assert undefended.authorised > 45
    assert attacked.authorised < undefended.authorised / 3
    assert attacked.opened_after_s is not None
    assert attacked.opened_after_s < 10
    assert calm.false_positives == undefended.false_positives == 0
    assert calm.success - attacked.success < 0.01
    assert attacked.donors_refused <= attacked.donors / 1_000


def test_run_is_the_same_each_time() -> None:
    assert outcome(PLAN) == outcome(PLAN)


def test_outage_of_a_bank_costs_its_donors_little() -> None:
    plan = replace(PLAN, attack=None, outage=0.3)
    guarded, endured = outcome(plan), outcome(replace(plan, defended=False))
    assert endured.success - guarded.success < 0.02
