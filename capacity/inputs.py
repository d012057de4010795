"""The inputs of the plan, read from `inputs.toml`: measured costs, limits, prices and loads."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("inputs.toml")
SERVICES: Final = ("gateway", "pledges", "payments", "leaderboard", "notify")
DATABASES: Final = ("pledges", "payments", "leaderboard", "notify")


@dataclass(frozen=True, slots=True)
class Load:
    """Donations a second for some minutes, a burst on top, and the donations of the whole drive."""

    name: str
    rate: float
    minutes: float
    burst_rate: float
    burst_s: float
    donations: int


@dataclass(frozen=True, slots=True)
class Audience:
    """Viewers who poll the totals, and overlays that hold a live stream."""

    name: str
    viewers: int
    overlays: int


@dataclass(frozen=True, slots=True)
class Inputs:
    """Every input by table and name; `dates` tells when each table was measured or assumed."""

    tables: Mapping[str, Mapping[str, float]]
    dates: Mapping[str, date]
    loads: Sequence[Load]
    audiences: Sequence[Audience]

    def get(self, table: str, name: str) -> float:
        """One input. Raises KeyError."""
        return self.tables[table][name]

    def cpu_ms(self, process: str) -> float:
        """CPU milliseconds a donation of a process."""
        return self.get("cpu_ms_a_donation", process)

    def limit(self, name: str) -> float:
        """One of the limits."""
        return self.get("limits", name)

    def price(self, name: str) -> float:
        """One of the prices, in dollars."""
        return self.get("prices", name)

    @property
    def bytes_stored(self) -> float:
        """Bytes a donation in all databases, rows and indexes."""
        return sum(self.get("bytes_a_donation", name) for name in DATABASES)


def load(file: Path = FILE) -> Inputs:
    """Read the inputs. Raises OSError, KeyError, tomllib.TOMLDecodeError."""
    return parse(tomllib.loads(file.read_text(encoding="utf-8")))


def parse(found: Mapping[str, Any]) -> Inputs:
    """The inputs of a parsed file."""
    tables = {name: table for name, table in found.items() if isinstance(table, dict)}
    return Inputs(
        tables={
            name: {key: float(value) for key, value in table.items() if isinstance(value, int | float)}
            for name, table in tables.items()
        },
        dates={
            name: value
            for name, table in tables.items()
            for value in table.values()
            if isinstance(value, date)
        },
        loads=[Load(**one) for one in found["loads"]],
        audiences=[Audience(**one) for one in found["audiences"]],
    )
