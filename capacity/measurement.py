"""Measures on a running stack what one donation costs: bytes of each database, of WAL and Kafka, and CPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from bench.process_usage import cpu_s
from stack import processes
from stack.layout import HOST, read_json, read_ports

DATABASES: Final = ("pledges", "payments", "leaderboard", "notify", "gateway")
PROCESSES: Final = (*DATABASES, "postgres", "kafka", "sandbox", "prometheus")
_TABLES: Final = """
    SELECT relname, pg_table_size(oid) AS rows, pg_indexes_size(oid) AS indexes
    FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
_COUNTED: Final = "SELECT count(*) FROM drive_log WHERE type = 'donation.counted'"


class NoStack(Exception):
    """No stack runs in the data directory; the message says so."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Cumulative figures at one time: bytes of rows and of indexes by database, and CPU by process."""

    donations: int
    rows: Mapping[str, int]
    indexes: Mapping[str, int]
    tables: Mapping[str, int]
    wal: int
    kafka: int
    cpu_s: Mapping[str, float]


async def read(directory: Path) -> Reading:
    """Read the stack in `directory` (`.ataa/stack`). Raises NoStack."""
    ports, secrets = read_ports(directory), read_json(directory / "secrets.json")
    pids = {name: processes.find(name, directory / "run").pid for name in PROCESSES}
    if not ports or pids["postgres"] is None:
        raise NoStack(f"no stack runs in {directory}; start one with make stack")
    rows: dict[str, int] = {}
    indexes: dict[str, int] = {}
    tables: dict[str, int] = {}
    donations = wal = 0
    for name in DATABASES:
        connection = await asyncpg.connect(
            host=HOST, port=ports["postgres"], user="ataa", password=secrets["postgres"], database=name
        )
        try:
            sizes = await connection.fetch(_TABLES)
            rows[name] = sum(size["rows"] for size in sizes)
            indexes[name] = sum(size["indexes"] for size in sizes)
            tables |= {f"{name}.{size['relname']}": size["rows"] + size["indexes"] for size in sizes}
            wal = int(await connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))
            if name == "leaderboard":
                donations = await connection.fetchval(_COUNTED)
        finally:
            await connection.close()
    logs = sum(file.stat().st_size for file in (directory / "kafka").rglob("*.log"))
    used = {name: cpu_s(pid, deep=True) for name, pid in pids.items() if pid is not None}
    return Reading(donations, rows, indexes, tables, wal, logs, used)


def per_donation(before: Reading, after: Reading) -> dict[str, Any]:
    """Bytes and milliseconds of CPU a donation between two readings."""
    count = after.donations - before.donations
    if count <= 0:
        raise NoStack("no donation was counted in between")

    def shares(later: Mapping[str, float], earlier: Mapping[str, float], scale: float) -> dict[str, float]:
        return {name: round((later[name] - earlier.get(name, 0)) / count * scale, 2) for name in later}

    tables = shares(after.tables, before.tables, 1)
    return {
        "donations": count,
        "row_bytes": shares(after.rows, before.rows, 1),
        "index_bytes": shares(after.indexes, before.indexes, 1),
        "largest_tables": dict(sorted(tables.items(), key=lambda one: -one[1])[:12]),
        "wal_bytes": round((after.wal - before.wal) / count),
        "kafka_bytes": round((after.kafka - before.kafka) / count),
        "cpu_ms": shares(after.cpu_s, before.cpu_s, 1000),
    }


async def measure(data_dir: Path, gifts: int) -> dict[str, Any]:
    """Run the demo on the stack of `data_dir` at full speed, and read it before and after.

    CPU includes the stack's own idle work during the run.
    """
    directory = data_dir / "stack"
    before = await read(directory)
    demo = ["-m", "rehearsal", "demo", "--real", "--exit", "--seconds", "1", "--rush-seconds", "10"]
    subprocess.run(  # noqa: ASYNC221 - nothing else runs meanwhile
        [sys.executable, *demo, "--gifts", str(gifts), "--data-dir", str(data_dir)], check=True
    )
    return per_donation(before, await read(directory))
