"""`python -m bench overload`: the embedded system and the stack under several times their capacity."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench.figures import overload
from bench.figures.fanout import require_open_files
from bench.figures.overload import OverloadOptions
from bench.machine import describe_commit, describe_machine, load_average
from bench.progress import Progress
from bench.results import DIRECTORY, Detail, Results
from bench.specs import OVERLOAD
from bench.systems import ROOT, embedded_system, first_free_port, stack_system

FILE: Final = DIRECTORY / "overload.json"


def run(options: OverloadOptions, progress: Progress, *, with_stack: bool, note: str) -> Results:
    """Measure each system in turn; one that fails is skipped with its reason."""
    conditions: dict[str, Detail] = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average_before": round(load_average(), 2),
        "times": options.times,
        "seconds_of_overload": options.seconds,
    }
    if note:
        conditions["note"] = note
    results = Results(describe_machine(), describe_commit(ROOT), "overload", conditions)
    require_open_files(overload.CONNECTIONS)
    for name, start in (("embedded", embedded_system), ("stack", stack_system)):
        reason = "not measured"
        if name == "stack" and not with_stack:
            reason = "the stack is not in this run"
        else:
            try:
                with (
                    tempfile.TemporaryDirectory(
                        prefix="ataa-bench-", ignore_cleanup_errors=True
                    ) as directory,
                    start(ROOT, Path(directory), first_free_port()) as system,
                ):
                    about_s = options.seconds + 2 * options.peak_s + 20
                    progress.begin(f"{options.times:g} times the peak of the {name} system", about_s)
                    for measured in overload.measure(system, options):
                        results.add(measured)
                        progress.measured(measured)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                progress.failed(reason)
        for one in OVERLOAD:
            if one.endswith("_stack") == (name == "stack"):
                results.skip(one, reason)
    results.conditions["load_average_after"] = round(load_average(), 2)
    return results
