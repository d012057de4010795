"""Seeds hold, repeat exactly, and find planted bugs. `make simulate` and `.ci/run` run many more."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from simulation.campaign import Bug, run_seeds

ROOT = Path(__file__).parents[2]
SEEDS = (1, 2, 3, 4, 5)
FOUND_WITHIN = 1_000


async def _verdicts(seeds: Sequence[int], **options: Any) -> dict[int, dict[str, Any]]:
    return {verdict["seed"]: verdict async for verdict in run_seeds(seeds, jobs=1, **options)}


async def test_a_seed_repeats_exactly_in_another_process_and_in_another_order() -> None:
    first, again = await asyncio.gather(_verdicts(SEEDS), _verdicts(SEEDS[::-1], keep_trace=True))
    assert [first[seed]["violations"] for seed in SEEDS] == [[]] * len(SEEDS)
    assert len({first[seed]["digest"] for seed in SEEDS}) == len(SEEDS)
    assert sum(len(first[seed]["faults"]) for seed in SEEDS) > 0
    for seed in SEEDS:
        assert {**again[seed], "lines": []} == first[seed]
        assert len(again[seed]["lines"]) > 100


@pytest.mark.parametrize("bug", list(Bug))
async def test_a_planted_bug_is_found_within_a_thousand_seeds(bug: Bug) -> None:
    async with aclosing(run_seeds(range(1, 1 + FOUND_WITHIN), jobs=1, bug=bug)) as verdicts:
        async for verdict in verdicts:
            if verdict["violations"]:
                return
    pytest.fail(f"{bug} was not found")


def test_a_failing_seed_is_replayed_with_its_trace_by_the_command_line() -> None:
    command = [sys.executable, "-m", "simulation", "--planted", "double-apply"]
    found = subprocess.run([*command, "--jobs", "1"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = found.stdout.splitlines()
    described = next(place for place, line in enumerate(lines) if line.startswith("seed "))
    seed = lines[described].split()[1]
    replayed = subprocess.run(
        [*command, "--seed", seed], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert replayed.returncode == 1
    assert lines[described : described + 2] == replayed.stdout.splitlines()[-len(lines) + described :][:2]
