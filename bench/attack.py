"""The figures of the simulated card-testing attack, written to `bench/results/attack.json`.

Both are deterministic: they depend on the seed and the code, not on the machine.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from bench import single_figure
from bench.results import DIRECTORY, Detail
from simulation.card_testing.drive import Attack, Outcome, Plan, SimulatedDrive

ATTACK: Final = DIRECTORY / "attack.json"
MOST_AUTHORISED: Final = 49.0
MOST_LOST: Final = 0.01
OUTAGE: Final = 0.3
VARIANTS: Final = {
    "shared": Attack(shared=0.2),
    "persistent": Attack(persistent=True),
    "many_addresses": Attack(addresses=5_000),
}


def run(seed: int, out: Path) -> None:
    """Simulate and write the results."""
    plan = Plan(seed=seed)
    calm = _of(replace(plan, attack=None))
    undefended, attacked = _of(replace(plan, defended=False)), _of(plan)
    others = {name: _of(replace(plan, attack=attack)) for name, attack in VARIANTS.items()}
    outage = replace(plan, attack=None, outage=OUTAGE)
    endured, guarded = _of(replace(outage, defended=False)), _of(outage)
    details = _details("attacked", attacked) | {
        f"{name}_{field}": value
        for name, one in others.items()
        for field, value in (("authorised", one.authorised), ("lost_success", calm.success - one.success))
    }
    figures = {
        "attackers_authorisations": single_figure.of(
            "authorisations of 5,000 tries at 20/s from 200 addresses, 4 % of the cards good",
            attacked.authorised, "authorisations", MOST_AUTHORISED, details | {"seed": seed},
            floor=float(undefended.authorised),
        ),
        "donors_lost_success": single_figure.of(
            "part of 40 donors/s that gives without the attack and not under it",
            calm.success - attacked.success, "", MOST_LOST,
            {"without_attack": calm.success, "with_attack": attacked.success,
             "false_positives": attacked.false_positives, "donors": attacked.donors,
             "outage_lost_success": endured.success - guarded.success,
             "outage_false_positives": guarded.false_positives},
        ),
    }  # fmt: skip
    single_figure.write(out, figures, {"seed": seed})


def _of(plan: Plan) -> Outcome:
    return SimulatedDrive(plan).run()


def _details(name: str, outcome: Outcome) -> dict[str, Detail]:
    return {
        f"{name}_tries": outcome.tries,
        f"{name}_stopped": outcome.stopped,
        f"{name}_held": outcome.authorised_held,
        f"{name}_opened_after_s": outcome.opened_after_s,
        f"{name}_open_s": outcome.open_s,
        f"{name}_donors_refused": outcome.donors_refused,
        f"{name}_donors_held": outcome.donors_held,
        f"{name}_donors_expired": outcome.donors_expired,
    }
