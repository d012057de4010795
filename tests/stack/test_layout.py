"""A stack's ports, secrets and topics."""

from __future__ import annotations

import stat
from pathlib import Path

from backbone.bus.protocol import COMPACTED, PARTITIONS
from gateway.transparency.note_keys import NoteSigner
from services.leaderboard.snapshots import REPUBLISH_INTERVAL_S
from stack.layout import OFFSETS, lay_out, ports_from, read_json, read_ports
from stack.topics import read_topics


def test_ports_are_distinct_within_and_between_bases() -> None:
    ports = ports_from(18_000)
    assert len(set(ports.values())) == len(OFFSETS)
    assert not set(ports.values()) & set(ports_from(18_100).values())


def test_gateway_and_sandbox_ports_can_be_set_separately() -> None:
    ports = ports_from(18_000, gateway=8000, sandbox=8012)
    assert (ports["gateway"], ports["sandbox"], ports["pledges"]) == (8000, 8012, 18_001)


def test_secrets_are_generated_once_and_given_ones_take_precedence(tmp_path: Path) -> None:
    first = lay_out(tmp_path / "stack", tmp_path, ports_from(18_000), {"admin": "ak_admin_" + "a" * 20})
    second = lay_out(tmp_path / "stack", tmp_path, ports_from(18_000), {"admin": "", "token": "given"})
    assert second.secrets == {**first.secrets, "token": "given"}
    assert NoteSigner.parse(first.secrets["log_key"]).name.startswith("localhost/")
    assert read_json(tmp_path / "stack" / "keys.json")["admin"] == "ak_admin_" + "a" * 20
    assert read_ports(tmp_path / "stack") == ports_from(18_000)


def test_secret_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    lay_out(tmp_path / "stack", tmp_path, ports_from(18_000), {})
    for name in ("secrets.json", "keys.json"):
        assert stat.S_IMODE((tmp_path / "stack" / name).stat().st_mode) == 0o600


def test_external_kafka_and_databases_replace_the_stacks_own(tmp_path: Path) -> None:
    layout = lay_out(
        tmp_path / "stack",
        tmp_path,
        ports_from(18_000),
        {},
        kafka="kafka.example:9092",
        databases={"payments": "postgresql://x@db.example/p"},
    )
    assert layout.kafka == "kafka.example:9092"
    assert layout.databases["payments"] == "postgresql://x@db.example/p"
    assert layout.databases["pledges"].endswith("@127.0.0.1:18032/pledges")


def test_topics_match_the_bus_and_only_records_kept_in_databases_expire() -> None:
    topics = {topic.name: topic for topic in read_topics()}
    groups = {"pledges", "payments", "leaderboard", "notify"}
    assert topics.keys() == {"pledges", "payments", "drive-log", "snapshots"} | {
        f"{group}.dead-letter" for group in groups
    }
    assert {topic.partitions for topic in topics.values()} == {PARTITIONS}
    assert {
        topic.name for topic in topics.values() if topic.config["cleanup.policy"] == "compact"
    } == COMPACTED
    day_ms = 86_400_000
    by_age = {name: topic for name, topic in topics.items() if topic.config["retention.ms"] != "-1"}
    assert by_age.keys() == {"pledges", "payments", "drive-log"}
    for topic in by_age.values():
        retention_ms = int(topic.config["retention.ms"])
        assert retention_ms >= 30 * day_ms  # longer than any group may be behind
        assert int(topic.config["segment.ms"]) <= day_ms  # Kafka deletes whole segments only


def test_replaced_snapshots_are_kept_until_republished_and_compacted_within_an_hour() -> None:
    config = next(topic.config for topic in read_topics() if topic.name == "snapshots")
    hour_ms = 3_600_000
    assert int(config["min.compaction.lag.ms"]) >= 2 * REPUBLISH_INTERVAL_S * 1000
    assert int(config["max.compaction.lag.ms"]) + int(config["segment.ms"]) <= hour_ms
