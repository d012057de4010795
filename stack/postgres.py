"""The stack's own PostgreSQL: found, initialised once, and run as a user other than root."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import asyncpg

from backbone.postgres_url import split_tls
from stack.layout import HOST, Layout
from stack.requirements import MissingRequirement

USER: Final = "postgres"
READINESS_TIMEOUT_S: Final = 60.0
_ANSWER_S: Final = 5.0
_PR_GET_PDEATHSIG: Final = 2
_OPTIONS: Final = (
    *("-c", f"listen_addresses={HOST}"),
    *("-c", "unix_socket_directories="),
    *("-c", "max_connections=150"),
    *("-c", "log_min_messages=warning"),
    *("-c", "jit=off"),
)


def find_programs() -> Path:
    """The folder of initdb: Debian's newest version, or the one on the PATH. Raises MissingRequirement."""
    versions = [
        (int(found[1]), folder)
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if (found := re.fullmatch(r"(\d+)", folder.parent.name)) and (folder / "initdb").exists()
    ]
    if versions:
        return max(versions)[1]
    found_in_path = shutil.which("initdb")
    if found_in_path and (Path(found_in_path).resolve().parent / "postgres").exists():
        return Path(found_in_path).resolve().parent
    raise MissingRequirement(
        "PostgreSQL is not installed (on Debian: apt-get install postgresql; or set"
        " ATAA_DATABASE_URL_PLEDGES, _PAYMENTS, _LEADERBOARD, _NOTIFY and _GATEWAY to existing databases)"
    )


def as_user(folder: Path) -> list[str]:
    """The prefix of PostgreSQL's commands: empty, or as root the command that switches to another user.

    Where that user cannot enter the data directory's parents (root's home, for example), it gets the
    capability that allows it. Raises MissingRequirement.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    try:
        account = pwd.getpwnam(USER)
    except KeyError:
        raise MissingRequirement(
            f"PostgreSQL refuses to run as root, and there is no user {USER} (useradd -r postgres)"
        ) from None
    if setpriv is None:
        raise MissingRequirement(
            "PostgreSQL refuses to run as root; install setpriv (util-linux) to run it as another user"
        )
    prefix = [setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]
    capable = [*prefix, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    for one in (prefix, capable):
        # Not test -x: access(2) ignores the user's capabilities.
        looked = subprocess.run([*one, "stat", f"{folder}/."], capture_output=True, check=False, cwd="/")
        if not looked.returncode:
            return one
    raise MissingRequirement(
        f"ATAA_DATA_DIR: the user {USER} cannot enter {folder}; choose another directory"
    )


def serve(layout: Layout) -> None:
    """Initialise the data once, and replace this process by PostgreSQL. Raises MissingRequirement."""
    programs = find_programs()
    home = layout.directory / "postgres"
    home.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(home, USER, pwd.getpwnam(USER).pw_gid)
    prefix = as_user(home)
    data = home / "data"
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)
        _initialise(programs, data, layout.secrets["postgres"], prefix)
    os.chdir("/")
    options = ["-D", str(data), "-p", str(layout.ports["postgres"]), *_OPTIONS]
    command = [*prefix, *_die_with_parent(prefix), str(programs / "postgres"), *options]
    os.execv(command[0], command)


def _initialise(programs: Path, data: Path, password: str, prefix: list[str]) -> None:
    """Run initdb beside the data directory and rename the result, so that a killed start can be repeated."""
    with tempfile.NamedTemporaryFile("w", prefix="ataa-") as file:
        file.write(password)
        file.flush()
        if prefix:
            shutil.chown(file.name, USER)
        draft = data.with_name("data.new")
        shutil.rmtree(draft, ignore_errors=True)
        subprocess.run(
            [
                *(*prefix, str(programs / "initdb"), "-D", str(draft), "-U", "ataa", "-E", "UTF8"),
                *("--locale=C", "--auth=scram-sha-256", f"--pwfile={file.name}"),
            ],
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
            timeout=120,
        )
        draft.rename(data)


def _die_with_parent(prefix: list[str]) -> list[str]:
    """The option that sets prctl(2)'s death signal again, which a change of the user clears."""
    if not prefix or sys.platform != "linux":
        return []
    asked = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(asked))
    return [f"--pdeathsig={signal.SIGINT.name[3:]}"] if asked.value else []


async def make_databases(layout: Layout, names: list[str]) -> None:
    """Create the missing databases of the services. Raises TimeoutError, OSError."""
    connection = await _connect(layout)
    try:
        there = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for name in names:
            if name not in there:
                await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()


async def _connect(layout: Layout) -> Any:
    give_up = time.monotonic() + READINESS_TIMEOUT_S
    while True:
        try:
            return await asyncpg.connect(
                host=HOST,
                port=layout.ports["postgres"],
                user="ataa",
                password=layout.secrets["postgres"],
                database="postgres",
                timeout=5,
            )
        except (OSError, asyncpg.CannotConnectNowError, TimeoutError):
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(0.2)


async def connection_error(address: str) -> str:
    """Why an external database rejects the connection, in one line; empty where it accepts it."""
    # Imported here because no other command of the stack needs it.
    from sqlalchemy import NullPool, make_url
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError
    from sqlalchemy.ext.asyncio import create_async_engine

    url, tls = split_tls(make_url(address))
    engine = create_async_engine(url, poolclass=NullPool, connect_args={**tls, "timeout": _ANSWER_S})
    try:
        async with engine.connect():
            return ""
    except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        return " ".join(f"{type(cause).__name__}: {cause}".split())[:300]
    finally:
        await engine.dispose()
