"""Apache Kafka and PostgreSQL for the suites: real servers, one of each a test run.

A run takes `ATAA_TEST_KAFKA_BOOTSTRAP` and `ATAA_TEST_POSTGRES_URL` where they are set, else starts
its own: Kafka from the jars in `ATAA_KAFKA_LIBS`, `KAFKA_HOME/libs` or `.ataa/kafka/libs` (Maven puts
them there once), PostgreSQL from `ATAA_POSTGRES_BIN`, the PATH or Debian's folder. What is missing
skips the test with the reason, or fails it where `ATAA_REQUIRE_REAL=1`.
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
from stack import kafka, missing
from tests.ports import FOLDER, free_port
from tests.waiting import until

START_S: Final = 120.0
ROOT: Final = Path(__file__).parents[1]


class Missing(Exception):
    """What a real server needs is not on this machine."""


def kafka_bootstrap() -> str:
    """The address of a running Kafka."""
    return os.environ.get("ATAA_TEST_KAFKA_BOOTSTRAP") or shared("kafka", _start_kafka)


def postgres_server() -> str:
    """The address of a running PostgreSQL, as `postgresql://…`, of a user who may make databases."""
    return os.environ.get("ATAA_TEST_POSTGRES_URL") or shared("postgres", start_postgres)


@asynccontextmanager
async def fresh_topics(*topics: str) -> AsyncIterator[tuple[str, str]]:
    """Kafka's address, and a prefix under which `topics` are there and empty; they go at the end."""
    bootstrap, prefix = kafka_bootstrap(), f"{uuid.uuid4().hex[:12]}."
    names = [prefix + topic for topic in topics]
    await make_topics(bootstrap, *names)
    try:
        yield bootstrap, prefix
    finally:
        async with _admin(bootstrap) as admin:
            await admin.delete_topics(names)


async def make_topics(bootstrap: str, *names: str, **settings: str) -> None:
    """Make topics of twelve partitions each, and wait until the broker knows who leads them."""
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


@asynccontextmanager
async def fresh_postgres() -> AsyncIterator[str]:
    """The address of a new, empty PostgreSQL database; it is dropped at the end."""
    server = postgres_server()
    name = f"ataa_test_{uuid.uuid4().hex}"
    await _tell(server, f'CREATE DATABASE "{name}"')
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        await _tell(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _tell(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def shared(name: str, start: Callable[[Path], tuple[int, str]]) -> str:
    """What `start` started in this run, whichever worker asked for it first."""
    folder = Path(os.environ[FOLDER])
    word = folder / f"{name}.json"
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not word.exists():
            word.write_text(json.dumps(_try(folder / name, start)))
    said = json.loads(word.read_text())
    if "address" not in said:
        skip_or_fail(said["missing"])
    return str(said["address"])


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test for what is missing, or fail it where nothing may be."""
    if os.environ.get("ATAA_REQUIRE_REAL") == "1":
        pytest.fail(f"ATAA_REQUIRE_REAL=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def _try(folder: Path, start: Callable[[Path], tuple[int, str]]) -> Mapping[str, object]:
    folder.mkdir()
    try:
        pid, address = start(folder)
    except (Missing, OSError, subprocess.SubprocessError) as reason:
        return {"missing": str(reason)}
    return {"pid": pid, "address": address}


def stop_all(folder: Path) -> None:
    """Kill what this run started; its data goes with it."""
    for word in folder.glob("*.json"):
        if pid := json.loads(word.read_text()).get("pid"):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
                for _ in range(100):  # what still writes would leave files behind
                    os.kill(pid, 0)
                    time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


# Kafka


class KafkaNode:
    """One KRaft node of its own in `folder`, to be paused, killed and started again.

    `listeners` are those it has besides `address`, which is plain; `more` are further settings of it, and
    `formatting` further words for the formatting of its storage.
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
            raise Missing(f"Kafka cannot be set up: {(formatted.stderr or formatted.stdout)[-400:]}")
        self.start()

    def _command(self, *words: str) -> list[str]:
        jvm = ("-Xms128m", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        return [self._java, *jvm, "-cp", f"{self._libs}/*", *words]

    def start(self) -> None:
        """Start the node, and wait until it listens."""
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
        """SIGSTOP: it takes connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)


def _start_kafka(folder: Path) -> tuple[int, str]:
    node = KafkaNode(folder)
    return node.process.pid, node.address


def _java() -> str:
    if (found := shutil.which("java")) is None:
        raise Missing("there is no Java on the PATH (on Debian: apt install openjdk-17-jre-headless)")
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
    """As `make stack` fetches them, once."""
    try:
        return kafka.fetch(ROOT / ".ataa")
    except missing.Missing as reason:
        raise Missing(str(reason)) from reason


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
        "group.min.session.timeout.ms": "1000",  # a test waits out a whole session
        "auto.create.topics.enable": "false",
        **dict.fromkeys(single, "1"),
    }


# PostgreSQL


Prepare = Callable[[Path, str | None], Mapping[str, str]]
"""Has its hands on a new data directory, and the user it belongs to; returns options to run it with."""


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
        raise Missing(f"PostgreSQL cannot be set up: {made.stderr[-400:]}")
    options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
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
    while subprocess.run(asked, check=False).returncode:  # it listens before it takes anybody
        if time.monotonic() > deadline:
            process.kill()
            raise Missing(f"PostgreSQL was not ready within {START_S:.0f} s")
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
    raise Missing("there is no PostgreSQL (on Debian: apt install postgresql), nor ATAA_POSTGRES_BIN")


def _version(place: Path) -> int:
    return int(place.parent.name) if place.parent.name.isdecimal() else 0


def _postgres_user() -> str | None:
    """Whom PostgreSQL runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise Missing("PostgreSQL refuses to run as root, and there is no user postgres")


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
            raise Missing(f"{name} ended with {process.returncode}: {log.read_text()[-600:]}")
        with suppress(OSError), socket.create_connection((host, int(port)), 1.0):
            return
        time.sleep(0.05)
    process.kill()
    raise Missing(f"{name} did not listen within {START_S:.0f} s")
