"""A process that runs seeds, each in a fork of its own: `python -m simulation.worker`.

It prepares once what all seeds need: the imports, a template of the databases, composed services, and caches
filled by a run without faults. A seed then starts from exactly this memory, so that no seed influences
another, and costs a tenth of what a new process would. It reads seeds from standard input, one a line, and
writes one verdict a line.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulation import planted
from simulation.campaign import Bug
from simulation.seed_run import make_template, run_seed, warm_up
from simulation.system import System


class Worker:
    """Runs seeds; `bug` is planted in their process."""

    def __init__(self, folder: Path, bug: Bug | None = None) -> None:
        self._template = folder / "template"
        self._system = System(folder / "data")
        make_template(self._system, self._template)
        warm_up(self._system, self._template)
        asyncio.run(self._system.compose_spares())
        if bug is not None:
            planted.BUGS[bug]()
        gc.collect()
        gc.freeze()

    def run(self, seed: int, *, keep_trace: bool = False) -> dict[str, Any]:
        """The verdict on a seed, from a fork of this process."""
        verdict: dict[str, Any] = _in_fork(
            lambda: run_seed(self._system, self._template, seed, keep_trace=keep_trace).as_json()
        )
        return verdict


def _in_fork(work: Callable[[], Any]) -> Any:
    """What `work` returns in a fork of this process, which ends without any cleaning up."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        gc.disable()
        try:
            with os.fdopen(writer, "w") as pipe:
                json.dump(work(), pipe)
        except BaseException as error:
            sys.stderr.write(f"simulation: the run failed: {type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError("the run ended without a verdict")
    return json.loads(text)


def main() -> None:
    """Run the seeds on standard input."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--planted", choices=[bug.value for bug in planted.BUGS], help="a bug of simulation.planted"
    )
    parser.add_argument("--trace", action="store_true", help="send the trace with each verdict")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=fast_folder()) as folder:
        worker = Worker(Path(folder), Bug(options.planted) if options.planted else None)
        for line in sys.stdin:
            sys.stdout.write(json.dumps(worker.run(int(line), keep_trace=options.trace)) + "\n")
            sys.stdout.flush()


def fast_folder() -> str | None:
    """Where files are kept in memory; None where there is no such place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of its own in it


if __name__ == "__main__":
    main()
