"""Flame graphs of what is measured, and CPU by library, with py-spy where it is installed.

py-spy needs no change in the process that it samples: `--nonblocking` does not even pause it. It is no
dependency: `pip install py-spy` anywhere on the path, or `ATAA_BENCH_PYSPY` with its place.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.results import DIRECTORY
from bench.systems import ROOT, stop

RATE: Final = 100
_PLACE: Final = re.compile(r"\((?P<file>[^()]*?)(?::\d+)?\)$")
_OWN: Final = frozenset({"backbone", "gateway", "services", "embedded", "sandbox", "rehearsal", "bench"})


def py_spy() -> str | None:
    """The program, None where it is not installed."""
    return os.environ.get("ATAA_BENCH_PYSPY") or shutil.which("py-spy")


class Flames:
    """Samples processes while a figure is measured, if asked to and if py-spy is installed.

    `skipped` says why there are none.
    """

    def __init__(self, asked: bool) -> None:
        self._program = py_spy() if asked else None
        self.skipped = "" if self._program else ("py-spy is not installed" if asked else "not asked for")

    @contextmanager
    def of(self, figure: str, processes: Mapping[str, int]) -> Iterator[dict[str, Counter[str]]]:
        """Sample `processes`; afterwards the dictionary has each one's samples by library.

        Writes `bench/results/flame-FIGURE-PROCESS.svg` and, beside it, the samples as `.folded`.
        """
        found: dict[str, Counter[str]] = {}
        if self._program is None:
            yield found
            return
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        files = {name: DIRECTORY / f"flame-{figure}-{name}.folded" for name in processes}
        recorders = [
            self._record(processes[name], kind, file.with_suffix(suffix))
            for name, file in files.items()
            for kind, suffix in (("raw", ".folded"), ("flamegraph", ".svg"))
        ]
        try:
            yield found
        finally:
            for recorder in recorders:
                stop(recorder, signal.SIGINT)  # py-spy then writes its file
        for name, file in files.items():
            self._without_places(file.with_suffix(".svg"))
            if file.exists():
                found[name] = by_library(file.read_text(encoding="utf-8", errors="replace"))

    def _without_places(self, file: Path) -> None:
        """py-spy writes its command into the graph, with this machine's paths."""
        if file.exists():
            text = file.read_text(encoding="utf-8", errors="replace")
            text = text.replace(str(self._program), "py-spy").replace(f"{ROOT}/", "")
            file.write_text(text, encoding="utf-8")

    def _record(self, pid: int, kind: str, file: Path) -> subprocess.Popen[bytes]:
        file.unlink(missing_ok=True)
        command = [str(self._program), "record", "--nonblocking", "--format", kind, "--rate", str(RATE)]
        command += ["--duration", "unlimited", "--output", str(file), "--pid", str(pid)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def by_library(samples: str) -> Counter[str]:
    """Samples by the package of the innermost Python frame: what a library spends in C counts as its own."""
    found: Counter[str] = Counter()
    for stack, count in _stacks(samples):
        found[library_of(stack[-1])] += count
    return found


def library_of(frame: str) -> str:
    """The package of a frame such as `run (uvloop/loop.pyx:12)`; `ataa` for one of ours."""
    place = _PLACE.search(frame)
    parts = [part for part in place["file"].split("/") if part not in ("", ".", "..")] if place else []
    if "site-packages" in parts:
        parts = parts[parts.index("site-packages") + 1 :]
    elif any(part in _OWN for part in parts):
        return "ataa"
    elif (
        library := next((at for at, part in enumerate(parts) if part.startswith("python3")), None)
    ) is not None:
        parts = parts[library + 1 :]
    return parts[0].removesuffix(".py") if parts else "python"


def _stacks(samples: str) -> Iterator[tuple[list[str], int]]:
    for line in samples.splitlines():
        text, _, count = line.rpartition(" ")
        if text and count.isdigit():
            yield text.split(";"), int(count)


def shares(found: Mapping[str, int], most: int = 8) -> str:
    """`sqlalchemy 31 %, ataa 18 %, …`: the largest shares of the samples."""
    total = sum(found.values()) or 1
    largest = sorted(found.items(), key=lambda item: -item[1])[:most]
    return ", ".join(f"{name} {count / total * 100:.0f} %" for name, count in largest)
