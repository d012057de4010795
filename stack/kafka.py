"""Apache Kafka without a container: one node from its jars, broker and controller in one (KRaft)."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Final

from stack.layout import REPOSITORY, Layout
from stack.requirements import MissingRequirement

DEPLOY: Final = REPOSITORY / "deploy" / "kafka"
COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies"
FETCH_S: Final = 600.0
_JAVA: Final = 17
_JVM: Final = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Only the first JIT tier: on a small machine the optimising compiler takes more CPU than the broker."""


def find_java(environment: Mapping[str, str]) -> str:
    """Java 17 or newer, from JAVA_HOME or PATH. Raises MissingRequirement."""
    home = environment.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else environment.get("PATH"))
    advice = "on Debian: apt-get install default-jre-headless; or set JAVA_HOME, or ATAA_KAFKA_BOOTSTRAP"
    if java is None:
        raise MissingRequirement(
            f"Kafka needs Java {_JAVA} or newer, which is not installed ({advice} to an existing Kafka)"
        )
    output = subprocess.run(
        [java, "-version"], capture_output=True, text=True, check=False, timeout=30
    ).stderr
    version = re.search(r'version "(\d+)', output)
    if version is None or int(version[1]) < _JAVA:
        raise MissingRequirement(
            f"Kafka needs Java {_JAVA} or newer; {java} is {version[1] if version else 'not Java'} ({advice})"
        )
    return java


def find_libraries(data_dir: Path, environment: Mapping[str, str]) -> Path | None:
    """Kafka's jars, from `KAFKA_HOME` or fetched; None if they must be fetched. Raises MissingRequirement."""
    home = environment.get("KAFKA_HOME")
    if home:
        libraries = Path(home) / "libs"
        if not any(libraries.glob("kafka_*.jar")):
            raise MissingRequirement(
                f"KAFKA_HOME={home} has no libs/kafka_*.jar; set it to the folder of an unpacked Kafka"
            )
        return libraries
    libraries = data_dir.absolute() / "kafka" / "libs"
    return libraries if any(libraries.glob("kafka_*.jar")) else None


def find_maven() -> str:
    """Find Maven, which fetches the jars. Raises MissingRequirement."""
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingRequirement(
            "Maven, which fetches Kafka's jars once, is not installed (on Debian: apt-get install maven; or"
            " unpack a Kafka release and set KAFKA_HOME; or set ATAA_KAFKA_BOOTSTRAP to an existing Kafka)"
        )
    return maven


def fetch(data_dir: Path) -> Path:
    """Have Maven copy Kafka's jars into the data directory, atomically. Raises MissingRequirement.

    Concurrent callers wait for the first one's result.
    """
    target = data_dir.absolute() / "kafka" / "libs"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not any(target.glob("kafka_*.jar")):
            _copy_jars(target)
    return target


def _copy_jars(target: Path) -> None:
    draft = target.with_name("libs.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    done = subprocess.run(
        [
            *(find_maven(), "-q", "-B", "-f", str(DEPLOY / "pom.xml"), COPY),
            *("-DincludeScope=runtime", f"-DoutputDirectory={draft}"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=FETCH_S,
        cwd=draft,
    )
    if done.returncode or not any(draft.glob("kafka_*.jar")):
        output = " ".join((done.stdout + done.stderr).split())[:400]
        raise MissingRequirement(f"Maven could not fetch Kafka's jars: {output}")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)


def serve(layout: Layout) -> None:
    """Write the broker's settings, format its storage once, and replace this process by the broker.

    Raises MissingRequirement.
    """
    java = find_java(os.environ)
    libraries = find_libraries(layout.data_dir, os.environ) or fetch(layout.data_dir)
    home = layout.directory / "kafka"
    home.mkdir(exist_ok=True)
    properties = home / "server.properties"
    text = Template((DEPLOY / "server.properties").read_text(encoding="utf-8"))
    properties.write_text(
        text.substitute(
            port=layout.ports["kafka"],
            controller_port=layout.ports["kafka_controller"],
            data=home / "data",
        ),
        encoding="utf-8",
    )
    logging = f"-Dlog4j2.configurationFile=file:{DEPLOY / 'log4j2.properties'}"
    command = [java, *_JVM, logging, "-cp", f"{libraries}/*"]
    if not (home / "data" / "meta.properties").exists():
        cluster = f"--cluster-id={layout.secrets['kafka_cluster']}"
        storage = ["kafka.tools.StorageTool", "format", "--standalone", cluster, "-g"]
        subprocess.run([*command, *storage, "--config", str(properties)], check=True, timeout=60)
    os.chdir(home)
    os.execv(java, [*command, "kafka.Kafka", str(properties)])
