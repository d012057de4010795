"""Many seeds on several processes: `simulation.worker` runs them, this distributes them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
MAX_VERDICT: Final = 1 << 26
"""Bytes of one verdict, with the trace of a replay."""


class Bug(StrEnum):
    """The bugs that `simulation.planted` can plant."""

    LOST_ACK = "lost-ack"
    DOUBLE_APPLY = "double-apply"
    REORDERED_VERSION = "reordered-version"
    STALE_READ = "stale-read"
    LOST_FRAME = "lost-frame"


class WorkerFailed(Exception):
    """A worker process ended without a verdict; the message is what it wrote to standard error."""


async def run_seeds(
    seeds: Iterable[int], *, jobs: int, bug: Bug | None = None, keep_trace: bool = False
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the verdict on each seed, in the order in which they are reached. Raises WorkerFailed.

    The workers end when the iteration does.
    """
    waiting = iter(seeds)
    verdicts: asyncio.Queue[dict[str, Any] | BaseException | None] = asyncio.Queue()
    workers = [asyncio.create_task(_work(waiting, verdicts, bug, keep_trace)) for _ in range(jobs)]
    try:
        left = jobs
        while left:
            verdict = await verdicts.get()
            if isinstance(verdict, BaseException):
                raise verdict
            if verdict is None:
                left -= 1
            else:
                yield verdict
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _work(
    seeds: Iterator[int],
    verdicts: asyncio.Queue[dict[str, Any] | BaseException | None],
    bug: Bug | None,
    keep_trace: bool,
) -> None:
    """Have one worker process run seeds until there are none left."""
    arguments = [*(["--planted", bug] if bug else []), *(["--trace"] if keep_trace else [])]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulation.worker", *arguments),
        cwd=ROOT,
        env=_environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=MAX_VERDICT,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    outcome: BaseException | None = None
    try:
        for seed in seeds:
            process.stdin.write(b"%d\n" % seed)
            line = await process.stdout.readline()
            if not line:
                errors = (await process.stderr.read()).decode(errors="replace")
                raise WorkerFailed(f"seed {seed}: {errors[-3000:]}")
            verdicts.put_nowait(json.loads(line))
    except Exception as error:
        outcome = error
    finally:
        process.stdin.close()  # the worker then removes its files and ends
        await process.communicate()
    verdicts.put_nowait(outcome)


def _environment() -> dict[str, str]:
    """Hashes of strings decide the order of sets, so they must be the same in every process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    return kept | {"PYTHONHASHSEED": "0"}
