"""Stripe's own stripe-mock, built by Go: it answers only requests that fit Stripe's OpenAPI description."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.ports import free_port

VERSION: Final = "v0.203.0"
MODULE: Final = f"github.com/stripe/stripe-mock@{VERSION}"


def missing(reason: str) -> NoReturn:
    """Skip, or fail where nothing may be missing."""
    if os.environ.get("ATAA_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@cache
def built(folder: Path) -> Path | str:
    """The program, or why there is none. Go checks the module against the checksum database."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if go is None:
        return "stripe-mock: Go is not installed"
    environment = {**os.environ, "GOBIN": str(folder), "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    done = subprocess.run(
        [go, "install", MODULE], env=environment, capture_output=True, text=True, check=False
    )
    return folder / "stripe-mock" if done.returncode == 0 else f"{MODULE} cannot be had: {done.stderr[-500:]}"


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The address of a running stripe-mock; skips or fails the test without Go or the module."""
    program = built(folder)
    if isinstance(program, str):
        missing(program)
    port = free_port()
    command = [str(program), "-http-addr", f"127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
