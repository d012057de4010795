"""Results files of the proofs that are run on their own, in the form of `bench/results.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import describe_commit, describe_machine
from bench.results import Detail, check, rounded
from bench.systems import ROOT


def of(
    what: str,
    value: float,
    unit: str,
    aim: float,
    details: Mapping[str, Detail],
    floor: float | None = None,
    *,
    more: bool = False,
) -> dict[str, Detail]:
    """A figure whose aim is at most `aim` (`more`: at least); its ratio is to `floor`, from the same run."""
    return {
        "what": what,
        "value": rounded(value),
        "unit": unit,
        "aim": aim,
        "lower_is_better": not more,
        "reached": value >= aim if more else value <= aim,
        "floor": rounded(floor),
        "ratio": rounded(value / floor) if floor else None,
        **{name: rounded(one) if isinstance(one, float) else one for name, one in details.items()},
    }


def write(
    file: Path,
    figures: Mapping[str, Any],
    conditions: Mapping[str, Detail],
    skipped: Mapping[str, str] | None = None,
) -> None:
    """Write a results file; `skipped` has the reason of each figure that was not measured.

    Raises BadResults where its form is wrong.
    """
    found = {
        "machine": describe_machine(),
        "commit": describe_commit(ROOT),
        "mode": "full",
        "conditions": {"ended": datetime.now(UTC).isoformat(timespec="seconds"), **conditions},
        "figures": dict(figures),
        "skipped": dict(skipped or {}),
    }
    check(found)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
