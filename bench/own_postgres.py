"""A PostgreSQL of the bench's own, with PostgreSQL's default durability, ended on exit."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.systems import CannotStart, free_port, stop
from stack.postgres import USER, as_user, find_programs
from stack.requirements import MissingRequirement

START_S: Final = 60.0
_OPTIONS: Final = ("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "jit=off")


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The URL of a new server whose data is in `folder`. Raises CannotStart with the reason."""
    data, port = folder / "postgres", free_port()
    data.mkdir(mode=0o700)
    try:
        programs = find_programs()
        if os.geteuid() == 0:
            folder.chmod(0o711)
            shutil.chown(data, USER, pwd.getpwnam(USER).pw_gid)
        prefix = as_user(data)
    except MissingRequirement as error:
        raise CannotStart(str(error)) from error
    initdb = [
        str(programs / "initdb"),
        "-D",
        str(data),
        "-A",
        "trust",
        "-U",
        "ataa",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    made = subprocess.run([*prefix, *initdb], capture_output=True, text=True, check=False, cwd="/")
    if made.returncode:
        raise CannotStart(f"initdb failed: {made.stderr[-300:]}")
    command = [*prefix, str(programs / "postgres"), "-D", str(data), "-p", str(port), *_OPTIONS]
    with (folder / "postgres.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
    try:
        _await(programs, port)
        yield f"postgresql://ataa@127.0.0.1:{port}/postgres"
    finally:
        stop(server)


def _await(programs: Path, port: int) -> None:
    asked = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    deadline = time.monotonic() + START_S
    while subprocess.run(asked, check=False).returncode:
        if time.monotonic() > deadline:
            raise CannotStart(f"PostgreSQL was not ready within {START_S:.0f} s")
        time.sleep(0.05)
