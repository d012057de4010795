"""The results of a run and their file, `bench/results/latest.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.specs import EVERY

DIRECTORY: Final = Path(__file__).resolve().parent / "results"
LATEST: Final = DIRECTORY / "latest.json"

Detail = float | int | str | bool | None


class BadResults(Exception):
    """A results file does not have the expected form; the message names the first difference."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The value of a figure, its floor from the same run, and details such as `p50_ms`."""

    name: str
    value: float
    floor: float | None = None
    details: Mapping[str, Detail] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of its floor."""
        return None if not self.floor else self.value / self.floor

    def as_json(self) -> dict[str, Detail]:
        """The figure's object in the results file; numbers have four significant digits."""
        spec = EVERY[self.name]
        return {
            "what": spec.what,
            "value": rounded(self.value),
            "unit": spec.unit,
            "aim": spec.aim,
            "lower_is_better": spec.lower_is_better,
            "reached": spec.is_reached(self.value),
            "floor": rounded(self.floor),
            "floor_is": spec.floor or None,
            "ratio": rounded(self.ratio),
            **{
                name: rounded(value) if isinstance(value, float) else value
                for name, value in self.details.items()
            },
        }


@dataclass(slots=True)
class Results:
    """What one run measured; `skipped` has the reason of each figure that it did not."""

    machine: str
    commit: str
    mode: str
    conditions: dict[str, Detail]
    figures: dict[str, Measured] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, measured: Measured) -> None:
        """Record a figure; it is no longer skipped."""
        self.figures[measured.name] = measured
        self.skipped.pop(measured.name, None)

    def skip(self, name: str, reason: str) -> None:
        """Record why a figure was not measured, unless it was; the first reason is kept."""
        if name not in self.figures:
            self.skipped.setdefault(name, " ".join(reason.split())[:300])

    def as_json(self) -> dict[str, Any]:
        """The content of the results file, the figures in the order of `EVERY`."""
        return {
            "machine": self.machine,
            "commit": self.commit,
            "mode": self.mode,
            "conditions": self.conditions,
            "figures": {name: self.figures[name].as_json() for name in EVERY if name in self.figures},
            "skipped": {name: self.skipped[name] for name in EVERY if name in self.skipped},
        }

    def write(self, file: Path) -> None:
        """Write the results atomically."""
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(file)


def read(file: Path) -> dict[str, Any]:
    """A results file. Raises BadResults where it is not one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadResults(f"{file}: {error}") from error
    check(found)
    return dict(found)


def check(found: Any) -> None:
    """Raises BadResults for the first part of `found` that a results file would not have."""
    if not isinstance(found, dict):
        raise BadResults("not an object")
    for name, kind in (
        ("machine", str),
        ("commit", str),
        ("mode", str),
        ("conditions", dict),
        ("figures", dict),
        ("skipped", dict),
    ):
        if not isinstance(found.get(name), kind):
            raise BadResults(f"{name}: not a {kind.__name__}")
    for name, figure in found["figures"].items():
        _check_figure(name, figure)
    for name, reason in found["skipped"].items():
        if not isinstance(reason, str) or not reason:
            raise BadResults(f"skipped.{name}: no reason")


def _check_figure(name: str, figure: Any) -> None:
    if not isinstance(figure, dict):
        raise BadResults(f"figures.{name}: not an object")
    for part in ("value", "aim"):
        if not _is_number(figure.get(part)):
            raise BadResults(f"figures.{name}.{part}: not a finite number")
    for part in ("floor", "ratio"):
        if part not in figure or not (figure[part] is None or _is_number(figure[part])):
            raise BadResults(f"figures.{name}.{part}: neither a finite number nor null")
    if not isinstance(figure.get("unit"), str):
        raise BadResults(f"figures.{name}.unit: not a string")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def rounded(value: float | None) -> float | None:
    """The value with four significant digits; thousands and more as whole numbers."""
    if value is None or not math.isfinite(value):
        return None
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")
