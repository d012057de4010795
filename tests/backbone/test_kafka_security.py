"""Kafka with TLS and SASL, configured by the settings; errors are reported with the setting to check."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backbone.bus.kafka import KafkaBus
from backbone.bus.kafka_security import KafkaSettings
from backbone.bus.protocol import BusUnavailable, Message
from backbone.settings import load
from tests.engines import MissingRequirement, make_topics, skip_or_fail
from tests.secure_engines import SecureKafka, make_authority, secure_kafka
from tests.waiting import until

TIMEOUT_S = 60.0
Given = Mapping[str, str]


@pytest.fixture
def cluster() -> SecureKafka:
    return secure_kafka()


def read(monkeypatch: pytest.MonkeyPatch, given: Given) -> KafkaSettings:
    """The settings from exactly these variables."""
    with monkeypatch.context() as environment:
        for name, value in given.items():
            environment.setenv(name, value)
        return load(KafkaSettings)


@asynccontextmanager
async def a_bus(settings: KafkaSettings, request_timeout_s: float) -> AsyncIterator[KafkaBus]:
    bus = KafkaBus(
        settings.kafka_bootstrap,
        prefix=settings.kafka_prefix,
        security=settings.kafka_security(),
        request_timeout_s=request_timeout_s,
    )
    try:
        yield bus
    finally:
        await bus.close()


async def publish_and_fetch(settings: KafkaSettings) -> None:
    """A message reaches a group and a follower."""
    async with a_bus(settings, TIMEOUT_S) as bus:
        member = await bus.subscribe("readers", ["notes"])
        reader = await bus.follow(["notes"], "beginning")
        await bus.publish([Message("notes", "k", "evt_1", "tests.noted.v1", b"winter")])
        for one in (member, reader):
            async with asyncio.timeout(TIMEOUT_S):
                while not (found := await one.fetch(10, 1.0)):
                    pass
            assert [(record.partition.topic, record.value) for record in found] == [("notes", b"winter")]


def with_certificate(cluster: SecureKafka) -> dict[str, str]:
    certificate, key = cluster.authority.signed("client")
    return {
        "ATAA_KAFKA_BOOTSTRAP": cluster.mutual,
        "ATAA_KAFKA_SECURITY_PROTOCOL": "SSL",
        "ATAA_KAFKA_CA_FILE": str(cluster.authority.file),
        "ATAA_KAFKA_CERT_FILE": str(certificate),
        "ATAA_KAFKA_KEY_FILE": str(key),
    }


@pytest.mark.parametrize("way", ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "a certificate"])
async def test_message_is_delivered_with_every_authentication_method(
    way: str, cluster: SecureKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"{uuid.uuid4().hex[:12]}."
    known = cluster.settings() | {"ATAA_KAFKA_SASL_MECHANISM": way}
    given = with_certificate(cluster) if way == "a certificate" else known
    await make_topics(cluster.plain, f"{prefix}notes")
    await publish_and_fetch(read(monkeypatch, given | {"ATAA_KAFKA_PREFIX": prefix}))


async def refused(settings: KafkaSettings, *words: str) -> None:
    """Publishing and reading both fail with one of `words`, and neither hangs."""
    async with a_bus(settings, request_timeout_s=5.0) as bus:
        ways: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: bus.publish([Message("notes", "k", "evt_1", "tests.noted.v1", b"winter")]),
            lambda: bus.subscribe("readers", ["notes"]),
        )
        for way in ways:
            # Retried where the machine was too busy for a response in time.
            await until(lambda way=way: _error_is(way, words), TIMEOUT_S)  # type: ignore[misc]


async def _error_is(way: Callable[[], Awaitable[object]], words: tuple[str, ...]) -> bool:
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(BusUnavailable) as said:
            await way()
    assert "wrong" not in str(said.value)
    return str(said.value).startswith(words)


async def test_wrong_password_is_reported_with_its_setting(
    cluster: SecureKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = read(monkeypatch, cluster.settings() | {"ATAA_KAFKA_SASL_PASSWORD": "wrong"})
    await refused(wrong, f"{cluster.sasl}: authentication failed, see ATAA_KAFKA_SASL_USER")


async def test_untrusted_certificate_is_reported_with_its_setting(
    cluster: SecureKafka, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = make_authority(tmp_path / "other")
    mistaken = read(monkeypatch, cluster.settings() | {"ATAA_KAFKA_CA_FILE": str(other.file)})
    await refused(mistaken, f"{cluster.sasl}: its certificate is not trusted, see ATAA_KAFKA_CA_FILE")


async def test_plaintext_to_a_tls_listener_is_reported_with_its_setting(
    cluster: SecureKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = read(monkeypatch, {"ATAA_KAFKA_BOOTSTRAP": cluster.sasl})
    await refused(
        plain, f"{cluster.sasl}: the server closed the connection, see ATAA_KAFKA_SECURITY_PROTOCOL"
    )


async def test_missing_client_certificate_is_reported_with_its_setting(
    cluster: SecureKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = with_certificate(cluster)
    bare = {name: value for name, value in given.items() if not name.endswith(("CERT_FILE", "KEY_FILE"))}
    # Either message, depending on timing: the refusal follows the handshake.
    both = f"{cluster.mutual}: TLS failed, see ", f"{cluster.mutual}: the server closed the connection, see "
    await refused(read(monkeypatch, bare), *both)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Certificate files by name."""
    try:
        made = make_authority(tmp_path / "tls", "ours", "theirs")
    except MissingRequirement as reason:
        skip_or_fail(str(reason))
    return {
        "CA": str(made.file),
        "CERT": str(made.signed("ours")[0]),
        "KEY": str(made.signed("ours")[1]),
        "OTHER_KEY": str(made.signed("theirs")[1]),
        "NONE": str(tmp_path / "none.pem"),
    }


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"SECURITY_PROTOCOL": "TLS"}, "SECURITY_PROTOCOL"),
        ({"SECURITY_PROTOCOL": "SSL", "CA_FILE": "{NONE}"}, "CA_FILE"),
        ({"SECURITY_PROTOCOL": "SSL", "CA_FILE": "{KEY}"}, "CA_FILE"),
        ({"CA_FILE": "{CA}"}, "CA_FILE"),
        ({"SECURITY_PROTOCOL": "SSL", "CERT_FILE": "{CERT}"}, "KEY_FILE"),
        ({"SECURITY_PROTOCOL": "SSL", "KEY_FILE": "{KEY}"}, "KEY_FILE"),
        ({"SECURITY_PROTOCOL": "SSL", "CERT_FILE": "{CERT}", "KEY_FILE": "{OTHER_KEY}"}, "KEY_FILE"),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_PASSWORD": "word"}, "SASL_USER"),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_USER": "ataa"}, "SASL_PASSWORD"),
        ({"SECURITY_PROTOCOL": "SSL", "SASL_USER": "ataa", "SASL_PASSWORD": "word"}, "SASL_USER"),
        ({"SASL_MECHANISM": "GSSAPI"}, "SASL_MECHANISM"),
        ({"PREFIX": "with a space"}, "PREFIX"),
        ({"SESSION_S": "1"}, "SESSION_S"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_invalid_kafka_setting_is_named_in_one_line(
    given: Given,
    named: str,
    files: Given,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = {f"ATAA_KAFKA_{name}": value.format(**files) for name, value in given.items()}
    with pytest.raises(SystemExit):
        read(monkeypatch, filled)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"ataa: ATAA_KAFKA_{named}: ")
    assert "word" not in said[0].replace("password", "")


def test_password_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "SASL_USER": "ataa", "SASL_PASSWORD": "very secret"}
    settings = read(monkeypatch, {f"ATAA_KAFKA_{name}": value for name, value in given.items()})
    assert "very secret" not in repr(settings)
    assert "very secret" not in repr(settings.kafka_security())
