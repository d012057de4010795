"""Apache Kafka and PostgreSQL for the tests: real servers, one of each per test run.

A run uses `ATAA_TEST_KAFKA_BOOTSTRAP` and `ATAA_TEST_POSTGRES_URL` if they are set, else it starts its own:
Kafka from the jars in `ATAA_KAFKA_LIBS`, `KAFKA_HOME/libs` or `.ataa/kafka/libs` (downloaded once by Maven),
PostgreSQL from `ATAA_POSTGRES_BIN`, the PATH or Debian's folder. If something is missing, the test is skipped
with the reason, or fails if `ATAA_REQUIRE_REAL=1`.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from sqlalchemy import make_url

from backbone.bus.protocol import PARTITIONS
from stack import kafka, requirements
from tests.migrated import migrate
from tests.ports import FOLDER, free_port
from tests.waiting import until

START_S: Final = 120.0
ROOT: Final = Path(__file__).parents[1]


class MissingRequirement(Exception):
    """A program that a server needs is not installed."""


def kafka_bootstrap() -> str:
    """The address of a running Kafka."""
    return os.environ.get("ATAA_TEST_KAFKA_BOOTSTRAP") or shared("kafka", _start_kafka)


def postgres_server() -> str:
    """The URL of a running PostgreSQL, with a user that may create databases."""
    return os.environ.get("ATAA_TEST_POSTGRES_URL") or shared("postgres", start_postgres)


@asynccontextmanager
async def fresh_topics(*topics: str) -> AsyncIterator[tuple[str, str]]:
    """Create empty `topics` under a prefix; yield Kafka's address and the prefix; delete them at the end."""
    bootstrap, prefix = kafka_bootstrap(), f"{uuid.uuid4().hex[:12]}."
    names = [prefix + topic for topic in topics]
    await make_topics(bootstrap, *names)
    try:
        yield bootstrap, prefix
    finally:
        async with _admin(bootstrap) as admin:
            await admin.delete_topics(names)


async def make_topics(bootstrap: str, *names: str, **settings: str) -> None:
    """Create topics of twelve partitions each, and wait until every partition has a leader."""
    async with _admin(bootstrap) as admin:
        made = await admin.create_topics(
            [NewTopic(name, PARTITIONS, 1, topic_configs=settings) for name in names]
        )
        assert not any(code for _, code, *_ in made.topic_errors), made

        async def led() -> bool:
            found = await admin.describe_topics(list(names))
            leaders = [one["leader"] for topic in found for one in topic["partitions"]]
            return len(leaders) == PARTITIONS * len(names) and -1 not in leaders

        await until(led)


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


BUSY_TIMEOUT_S: Final = 60.0
"""How long a transaction may take in tests that are about something else, on a busy machine."""


@asynccontextmanager
async def fresh_postgres(package: str = "") -> AsyncIterator[str]:
    """The URL of a new PostgreSQL database, dropped at the end.

    It is empty, or that of a service, for example `services.payments`, with all its migrations.
    """
    server = postgres_server()
    name = f"ataa_test_{uuid.uuid4().hex}"
    # Copying a migrated database takes a tenth of the CPU that its migrations take.
    copied = f'TEMPLATE "{await _template(server, package)}"' if package else ""
    await _execute(server, f'CREATE DATABASE "{name}" {copied}')
    try:
        yield _url(server, name)
    finally:
        await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def _url(server: str, database: str) -> str:
    return make_url(server).set(database=database).render_as_string(hide_password=False)


async def _template(server: str, package: str) -> str:
    """The name of a service's migrated database, made by the first worker of this run that needs it."""
    folder = Path(os.environ[FOLDER])
    result = folder / f"{package}.template"
    with (folder / f"{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            name = f"ataa_template_{uuid.uuid4().hex}"
            await _execute(server, f'CREATE DATABASE "{name}"')
            await migrate(package, _url(server, name))
            result.write_text(name)
    return result.read_text()


async def _execute(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def shared(name: str, start: Callable[[Path], tuple[int, str]]) -> str:
    """The address of a server of this run, started by the first worker that needs it."""
    folder = Path(os.environ[FOLDER])
    result = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            result.write_text(json.dumps(_try(folder / name, start)))
    outcome = json.loads(result.read_text())
    if "address" not in outcome:
        skip_or_fail(outcome["missing"])
    return str(outcome["address"])


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test with the reason, or fail it if `ATAA_REQUIRE_REAL=1`."""
    if os.environ.get("ATAA_REQUIRE_REAL") == "1":
        pytest.fail(f"ATAA_REQUIRE_REAL=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def _try(folder: Path, start: Callable[[Path], tuple[int, str]]) -> Mapping[str, object]:
    folder.mkdir()
    try:
        pid, address = start(folder)
    except (MissingRequirement, OSError, subprocess.SubprocessError) as reason:
        return {"missing": str(reason)}
    return {"pid": pid, "address": address}


def stop_all(folder: Path) -> None:
    """Kill the servers this run started and delete their data."""
    for file in folder.glob("*.json"):
        if pid := json.loads(file.read_text()).get("pid"):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
                for _ in range(100):  # a server that still writes would leave files behind
                    os.kill(pid, 0)
                    time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


# Kafka


class KafkaNode:
    """One KRaft node in `folder`, which may be paused, killed and started again.

    `address` is a plaintext listener, `listeners` are additional ones, `more` are additional settings, and
    `formatting` are additional arguments for formatting its storage.
    """

    def __init__(
        self,
        folder: Path,
        listeners: Sequence[str] = (),
        more: Mapping[str, str] | None = None,
        formatting: Sequence[str] = (),
    ) -> None:
        self._java, self._libs = _java(), _kafka_libs()
        self._folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self._settings = folder / "server.properties"
        settings = _kafka_settings(folder, [f"PLAINTEXT://{self.address}", *listeners], free_port())
        self._settings.write_text(
            "".join(f"{name}={value}\n" for name, value in {**settings, **(more or {})}.items())
        )
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formatted = subprocess.run(
            self._command("kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster}",
                          "--config", str(self._settings), *formatting),
            check=False, capture_output=True, text=True, timeout=START_S,
        )  # fmt: skip
        if formatted.returncode:
            raise MissingRequirement(
                f"Kafka cannot be set up: {(formatted.stderr or formatted.stdout)[-400:]}"
            )
        self.start()

    def _command(self, *arguments: str) -> list[str]:
        jvm = ("-Xms128m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        return [self._java, *jvm, "-cp", f"{self._libs}/*", *arguments]

    def start(self) -> None:
        """Start the node and wait until it listens."""
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._settings)),
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        _await_port(self.address, self.process, self._folder / "log", "Kafka")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop the process with SIGSTOP: the kernel accepts connections, and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the process with SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


def _start_kafka(folder: Path) -> tuple[int, str]:
    node = KafkaNode(folder)
    return node.process.pid, node.address


def _java() -> str:
    if (found := shutil.which("java")) is None:
        raise MissingRequirement(
            "there is no Java on the PATH (on Debian: apt install openjdk-17-jre-headless)"
        )
    return found


def _kafka_libs() -> Path:
    data = Path(os.environ.get("ATAA_DATA_DIR") or ROOT / ".ataa")
    named = [("ATAA_KAFKA_LIBS", ""), ("KAFKA_HOME", "libs")]
    places = [Path(os.environ[name]) / below for name, below in named if os.environ.get(name)]
    for place in [*places, data / "kafka" / "libs", ROOT / ".ataa" / "kafka" / "libs"]:
        if any(place.glob("kafka_2.13-*.jar")):
            return place
    return _fetched_libs()


def _fetched_libs() -> Path:
    """The jars that `make stack` downloads once."""
    try:
        return kafka.fetch(ROOT / ".ataa")
    except requirements.MissingRequirement as reason:
        raise MissingRequirement(str(reason)) from reason


_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_SSL")


def _kafka_settings(folder: Path, listeners: Sequence[str], controller: int) -> dict[str, str]:
    single = ("offsets.topic.replication.factor", "transaction.state.log.replication.factor",
              "transaction.state.log.min.isr", "share.coordinator.state.topic.replication.factor",
              "share.coordinator.state.topic.min.isr", "offsets.topic.num.partitions")  # fmt: skip
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{controller}"]),
        "advertised.listeners": ",".join(listeners),
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": ",".join(f"{one}:{one}" for one in _PROTOCOLS)
        + ",CONTROLLER:PLAINTEXT",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "log.dirs": str(folder / "data"),
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",  # a test waits for a whole session
        "auto.create.topics.enable": "false",
        **dict.fromkeys(single, "1"),
    }


# PostgreSQL


Prepare = Callable[[Path, str | None], Mapping[str, str]]
"""Prepares a new data directory, given its user, and returns additional options for the server."""


def start_postgres(folder: Path, prepare: Prepare = lambda _data, _user: {}) -> tuple[int, str]:
    binaries, user, port = _postgres_binaries(), _postgres_user(), free_port()
    folder.parent.chmod(0o711)
    folder.chmod(0o711)
    data = folder / "data"
    data.mkdir(mode=0o700)
    if user is not None:
        shutil.chown(data, user, user)
    made = subprocess.run(
        [*_as(user), str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "ataa", "--no-sync"],
        check=False, capture_output=True, text=True, timeout=START_S, cwd="/",
    )  # fmt: skip
    if made.returncode:
        raise MissingRequirement(f"PostgreSQL cannot be set up: {made.stderr[-400:]}")
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
               "full_page_writes": "off", "wal_level": "minimal", "max_wal_senders": "0",
               "max_connections": "200", "deadlock_timeout": "200ms",
               **prepare(data, user)}  # fmt: skip
    given = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*_as(user), str(binaries / "postgres"), "-D", str(data), "-p", str(port), *given],
            stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip
    _await_port(f"127.0.0.1:{port}", process, folder / "log", "PostgreSQL")
    asked = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "30"]
    deadline = time.monotonic() + START_S
    while subprocess.run(asked, check=False).returncode:  # it listens before it accepts connections
        if time.monotonic() > deadline:
            process.kill()
            raise MissingRequirement(f"PostgreSQL was not ready within {START_S:.0f} s")
        time.sleep(0.05)
    return process.pid, f"postgresql://ataa@127.0.0.1:{port}/postgres"


def _postgres_binaries() -> Path:
    if named := os.environ.get("ATAA_POSTGRES_BIN"):
        return Path(named)
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True):
        if (place / "postgres").exists():
            return place
    raise MissingRequirement(
        "there is no PostgreSQL (on Debian: apt install postgresql), nor ATAA_POSTGRES_BIN"
    )


def _version(place: Path) -> int:
    return int(place.parent.name) if place.parent.name.isdecimal() else 0


def _postgres_user() -> str | None:
    """The user PostgreSQL runs as, because it refuses root; None for the current user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingRequirement("PostgreSQL refuses to run as root, and there is no user postgres")


def _as(user: str | None) -> Sequence[str]:
    if user is None:
        return ()
    found = pwd.getpwnam(user)
    return ("setpriv", f"--reuid={found.pw_uid}", f"--regid={found.pw_gid}", "--clear-groups")


def _await_port(address: str, process: subprocess.Popen[bytes], log: Path, name: str) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise MissingRequirement(f"{name} ended with {process.returncode}: {log.read_text()[-600:]}")
        with suppress(OSError), socket.create_connection((host, int(port)), 1.0):
            return
        time.sleep(0.05)
    process.kill()
    raise MissingRequirement(f"{name} did not listen within {START_S:.0f} s")
