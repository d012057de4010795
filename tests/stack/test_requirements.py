"""Missing requirements are named with the way to get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack import kafka
from stack.requirements import MissingRequirement
from stack.settings import StackSettings
from stack.startup import check


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JAVA_HOME", "KAFKA_HOME", "ATAA_KAFKA_BOOTSTRAP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.mark.usefixtures("bare")
def test_missing_java_and_maven_are_named_with_instructions(tmp_path: Path) -> None:
    missing = check(StackSettings(data_dir=tmp_path))
    assert any(line.startswith("Kafka needs Java 17") and "apt-get install" in line for line in missing)
    assert any(line.startswith("Maven") and "KAFKA_HOME" in line for line in missing)


@pytest.mark.usefixtures("bare")
def test_external_kafka_needs_neither_java_nor_maven(tmp_path: Path) -> None:
    missing = check(StackSettings(data_dir=tmp_path, kafka_bootstrap="kafka.example:9092"))
    assert not [line for line in missing if "Java" in line or "Maven" in line]


def test_old_java_is_named_with_its_version(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    with pytest.raises(MissingRequirement, match=r"needs Java 17 or newer; .*/java is 11 "):
        kafka.find_java({"JAVA_HOME": str(tmp_path)})


def test_kafka_home_without_jars_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match="KAFKA_HOME"):
        kafka.find_libraries(tmp_path, {"KAFKA_HOME": str(tmp_path)})
