"""PostgreSQL of one's own: found, initialised once, and run as a user it accepts (never root)."""

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
from stack.missing import Missing

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
    """The folder of initdb and postgres: the newest of Debian's, or PATH's. Raises Missing."""
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
    raise Missing(
        "PostgreSQL is not here (on Debian: apt-get install postgresql; or set ATAA_DATABASE_URL_PLEDGES,"
        " _PAYMENTS, _LEADERBOARD, _NOTIFY and _GATEWAY to databases you have)"
    )


def as_user(folder: Path) -> list[str]:
    """What goes before a command of PostgreSQL's: nothing, or as root what makes it another user.

    Where that user cannot enter the data directory's parents (root's home, say) it gets the one
    capability that lets it. Raises Missing.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    try:
        account = pwd.getpwnam(USER)
    except KeyError:
        raise Missing(
            f"PostgreSQL refuses to run as root, and there is no user {USER} (useradd -r postgres)"
        ) from None
    if setpriv is None:
        raise Missing("PostgreSQL refuses to run as root; setpriv (util-linux) makes it another user")
    prefix = [setpriv, f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]
    capable = [*prefix, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    for one in (prefix, capable):
        # Not test -x: access(2) asks what the user may without its capabilities.
        looked = subprocess.run([*one, "stat", f"{folder}/."], capture_output=True, check=False, cwd="/")
        if not looked.returncode:
            return one
    raise Missing(f"ATAA_DATA_DIR: the user {USER} cannot enter {folder}; choose one outside private folders")


def serve(layout: Layout) -> None:
    """Become PostgreSQL: make its data directory once, then run in this process's place. Raises Missing."""
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
    command = [*prefix, *_dying_with_parent(prefix), str(programs / "postgres"), *options]
    os.execv(command[0], command)


def _initialise(programs: Path, data: Path, password: str, prefix: list[str]) -> None:
    """initdb, beside the place and moved into it: a start killed in between begins anew."""
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


def _dying_with_parent(prefix: list[str]) -> list[str]:
    """Changing the user forgets prctl(2)'s death signal; where this process has one it is asked for again."""
    if not prefix or sys.platform != "linux":
        return []
    asked = ctypes.c_int(0)
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(asked))
    return [f"--pdeathsig={signal.SIGINT.name[3:]}"] if asked.value else []


async def make_databases(layout: Layout, names: list[str]) -> None:
    """Make the services' own databases where they are not there yet. Raises TimeoutError, OSError."""
    connection = await _connected(layout)
    try:
        there = {row["datname"] for row in await connection.fetch("SELECT datname FROM pg_database")}
        for name in names:
            if name not in there:
                await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()


async def _connected(layout: Layout) -> Any:
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


async def why_not(address: str) -> str:
    """Why somebody's database does not let us in, in one line; empty where it does."""
    # Imported where it is used: no other command of the stack needs it.
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
