"""Processes forked from one that has already imported Ataa; otherwise they start as `python -m` does.

Importing takes a second and a half, and the tests of crashes and replicas start a hundred and fifty
processes. Such a process has its own environment, files and output, and is killed like any other. The
commands `python -m` and `make` themselves are started by the tests of starting, of the stack, of the demo
and of the README.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from backbone import crash

_IMPORTED: Final = [
    "alembic.command",
    "asyncpg",
    "backbone.bus.kafka",
    "embedded.app",
    "sandbox.server",
    "rich.table",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "typer",
    "uvicorn",
]

_PR_SET_PDEATHSIG: Final = 1

_context: ForkServerContext | None = None


class ForkedProcess:
    """`python -m module …` with its own environment and log, with the methods of Popen that the tests use."""

    def __init__(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self._process: BaseProcess = _server().Process(
            target=_become, args=(module, list(arguments), dict(environment), str(log)), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or the negative signal number; None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same as `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process ends and return its exit status. Raises TimeoutError."""
        self._process.join(timeout)
        if self.returncode is None:
            raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)


def _server() -> ForkServerContext:
    global _context
    if _context is None:
        _context = multiprocessing.get_context("forkserver")
        _context.set_forkserver_preload(_IMPORTED)
    return _context


def _become(module: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    if sys.platform == "linux":  # killed with the test run, however that ends (prctl(2))
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with Path(log).open("ab", buffering=0) as output, Path(os.devnull).open("rb") as nothing:
        for number, file in enumerate((nothing, output, output)):
            os.dup2(file.fileno(), number)
    os.closerange(3, 256)  # the pipe to the test run, which would keep the fork server alive
    os.environ.clear()
    os.environ.update(environment)
    importlib.reload(crash)  # the only module that reads the environment when imported
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
