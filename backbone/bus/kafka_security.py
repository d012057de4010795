"""Connection security of Kafka: TLS, SASL, their settings, and the diagnosis of rejected connections.

The settings have Kafka's names (https://kafka.apache.org/documentation/#security). Contradictory settings are
refused at startup: a password that would not be used is an error, as a missing one is.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_core.core_schema import ValidationInfo

from backbone.settings import Settings

PROBE_TIMEOUT_S: Final = 5.0
"""How long each server may take to answer a connection attempt of `connection_failure`."""

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]
OptionalFile = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""The path of a file; empty for none."""


@dataclass(frozen=True, slots=True)
class Sasl:
    """Credentials for SASL authentication."""

    mechanism: Mechanism
    user: str
    password: SecretStr


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """Security of connections to a cluster. The default is plaintext, unauthenticated."""

    tls: ssl.SSLContext | None = None
    sasl: Sasl | None = None

    def options(self) -> dict[str, Any]:
        """The settings as arguments of aiokafka's clients."""
        if self.sasl is None:
            return {} if self.tls is None else {"security_protocol": "SSL", "ssl_context": self.tls}
        return {
            "security_protocol": "SASL_PLAINTEXT" if self.tls is None else "SASL_SSL",
            "ssl_context": self.tls,
            "sasl_mechanism": self.sasl.mechanism,
            "sasl_plain_username": self.sasl.user,
            "sasl_plain_password": self.sasl.password.get_secret_value(),
        }


PLAINTEXT: Final = KafkaSecurity()


class KafkaSettings(Settings):
    """Settings of the connection to Kafka."""

    kafka_bootstrap: str = Field(
        "", description="Kafka bootstrap servers, host:port,host:port; not used by the embedded run."
    )
    kafka_prefix: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        description="Prefix of every topic and group name, for a shared cluster.",
    )
    kafka_session_s: float = Field(
        10.0,
        ge=6,
        le=300,
        description="Session timeout: a process without heartbeats for so long loses its partitions.",
    )
    kafka_security_protocol: SecurityProtocol = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, as the listener is configured."
    )
    kafka_ca_file: OptionalFile = Field(
        None, description="PEM file of the CAs that sign Kafka's certificates; empty: the system's CAs."
    )
    kafka_cert_file: OptionalFile = Field(
        None, description="PEM file of the client certificate, where Kafka requires one."
    )
    kafka_key_file: OptionalFile = Field(
        None, description="PEM file of the client certificate's key, unencrypted.", validate_default=True
    )
    kafka_sasl_mechanism: Mechanism = Field(
        "SCRAM-SHA-512", description="SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN."
    )
    kafka_sasl_user: str = Field("", description="SASL user name.", validate_default=True)
    kafka_sasl_password: SecretStr = Field(SecretStr(""), description="SASL password.", validate_default=True)

    @field_validator("kafka_bootstrap")
    @classmethod
    def _bootstrap_servers(cls, value: str) -> str:
        for server in value.split(",") if value else ():
            host, _, port = server.strip().rpartition(":")
            if not host or not port.isdecimal():
                raise ValueError("must be host:port, several separated by commas")
        return value

    @field_validator("kafka_ca_file", "kafka_cert_file", "kafka_key_file")
    @classmethod
    def _readable_file(cls, file: Path | None, info: ValidationInfo) -> Path | None:
        if file is None:
            return None
        _must_be_used(info, "SSL")
        try:
            file.read_bytes()
        except OSError as error:
            raise ValueError(f"{file} cannot be read ({error.strerror})") from None
        return file.absolute()

    @field_validator("kafka_ca_file")
    @classmethod
    def _ca_certificates(cls, file: Path | None) -> Path | None:
        if file is not None:
            try:
                ssl.create_default_context(cafile=file)
            except ssl.SSLError:
                raise ValueError(f"{file} contains no PEM certificate") from None
        return file

    @field_validator("kafka_key_file")
    @classmethod
    def _certificate_and_key(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        cert: Path | None = info.data.get("kafka_cert_file")
        if cert is None:
            if key is not None and "kafka_cert_file" in info.data:
                raise ValueError("is set without ATAA_KAFKA_CERT_FILE")
            return key
        try:
            _load_certificate(ssl.create_default_context(), cert, key)
        except ssl.SSLError as error:
            raise ValueError(
                f"{cert} and its key cannot be read together ({error.reason or error})"
            ) from None
        return key

    @field_validator("kafka_sasl_user", "kafka_sasl_password")
    @classmethod
    def _set_for_sasl(cls, value: str | SecretStr, info: ValidationInfo) -> str | SecretStr:
        protocol = info.data.get("kafka_security_protocol", "")
        if value if isinstance(value, str) else value.get_secret_value():
            _must_be_used(info, "SASL")
        elif "SASL" in protocol:
            raise ValueError(f"must be set for ATAA_KAFKA_SECURITY_PROTOCOL={protocol}")
        return value

    def kafka_security(self) -> KafkaSecurity:
        """The connection security that these settings describe."""
        tls = None
        if "SSL" in self.kafka_security_protocol:
            tls = ssl.create_default_context(cafile=self.kafka_ca_file)
            if self.kafka_cert_file is not None:
                _load_certificate(tls, self.kafka_cert_file, self.kafka_key_file)
        if "SASL" not in self.kafka_security_protocol:
            return KafkaSecurity(tls)
        sasl = Sasl(self.kafka_sasl_mechanism, self.kafka_sasl_user, self.kafka_sasl_password)
        return KafkaSecurity(tls, sasl)


def _must_be_used(info: ValidationInfo, part: str) -> None:
    protocol = info.data.get("kafka_security_protocol")
    if protocol is not None and part not in protocol.split("_"):
        raise ValueError(f"is set, but ATAA_KAFKA_SECURITY_PROTOCOL={protocol} does not use it")


def _load_certificate(tls: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    # With an empty password: OpenSSL would otherwise prompt for one on the terminal.
    tls.load_cert_chain(cert, key, password="")


async def connection_failure(bootstrap: str, security: KafkaSecurity) -> str:
    """Why no server at `bootstrap` accepts a connection, with the reason of each; empty where one does.

    The exceptions of aiokafka's clients do not contain the reason.
    """
    from aiokafka.conn import create_conn

    reasons = []
    for server in bootstrap.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                connection = await create_conn(
                    host.strip("[]"),
                    int(port),
                    request_timeout_ms=int(PROBE_TIMEOUT_S * 1000),
                    **security.options(),
                )
        except Exception as error:
            reasons.append(f"{server}: {_describe(error)}")
        else:
            connection.close()
            return ""
    return "; ".join(reasons)


def _describe(error: BaseException) -> str:
    from aiokafka.errors import AuthenticationFailedError as ScramFailed
    from aiokafka.errors import KafkaConnectionError as ConnectionClosed
    from aiokafka.errors import SaslAuthenticationFailed as SaslRefused
    from aiokafka.errors import UnsupportedSaslMechanismError as MechanismUnsupported

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted, see ATAA_KAFKA_CA_FILE ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed, see ATAA_KAFKA_SECURITY_PROTOCOL and _CERT_FILE ({error.reason or error})"
    if isinstance(error, TimeoutError):
        return f"no answer within {PROBE_TIMEOUT_S:.0f} s"
    if isinstance(error, ScramFailed | SaslRefused | MechanismUnsupported):
        return f"authentication failed, see ATAA_KAFKA_SASL_USER, _PASSWORD and _MECHANISM ({error})"
    if isinstance(error, ConnectionClosed | ConnectionResetError):
        return "the server closed the connection, see ATAA_KAFKA_SECURITY_PROTOCOL and _CERT_FILE"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
