"""The stack's settings, in addition to those of the services."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator
from pydantic_core.core_schema import ValidationInfo

from backbone.process import ProcessSettings
from backbone.settings import PREFIX, DatabaseUrl

SERVICES = ("pledges", "payments", "leaderboard", "notify", "gateway")
"""The five services, in starting order."""


class StackSettings(ProcessSettings):
    """Settings of `python -m stack`."""

    stack_port_base: int = Field(
        18_000, ge=1024, le=65_000, description="First port of the stack on one machine."
    )
    gateway_port: int | None = Field(
        None, ge=1, le=65535, description="Port of the public API; default: the base."
    )
    sandbox_port: int | None = Field(
        None, ge=1, le=65535, description="Port of the Stripe sandbox; default: the base + 12."
    )
    admin_key: SecretStr = Field(SecretStr(""), description="The first admin key.")
    token_secret: SecretStr = Field(SecretStr(""), description="Secret that signs the tokens of pledges.")
    stripe_api_key: SecretStr = Field(
        SecretStr(""), description="Stripe API key; without one, the sandbox is used."
    )
    stripe_api_base: str = Field("", description="Address of Stripe's API, or of another sandbox.")
    database_url_pledges: DatabaseUrl = Field("", description="External PostgreSQL URL for pledges.")
    database_url_payments: DatabaseUrl = Field("", description="External PostgreSQL URL for payments.")
    database_url_leaderboard: DatabaseUrl = Field("", description="External PostgreSQL URL for leaderboard.")
    database_url_notify: DatabaseUrl = Field("", description="External PostgreSQL URL for notify.")
    database_url_gateway: DatabaseUrl = Field("", description="External PostgreSQL URL for the gateway.")

    @field_validator("kafka_security_protocol")
    @classmethod
    def _require_external_kafka(cls, protocol: str, info: ValidationInfo) -> str:
        if protocol != "PLAINTEXT" and not info.data.get("kafka_bootstrap"):
            raise ValueError(
                "applies to an external Kafka: set ATAA_KAFKA_BOOTSTRAP too (the stack's own is plaintext)"
            )
        return protocol

    def kafka_files(self) -> dict[str, str]:
        """The variables that name Kafka's TLS files, with absolute paths."""
        files = {name: getattr(self, name) for name in ("kafka_ca_file", "kafka_cert_file", "kafka_key_file")}
        return {f"{PREFIX}{name.upper()}": str(file) for name, file in files.items() if file is not None}

    def given_databases(self) -> dict[str, str]:
        """The external databases, by service."""
        urls = {name: str(getattr(self, f"database_url_{name}")) for name in SERVICES}
        return {name: url for name, url in urls.items() if url}

    @property
    def uses_sandbox(self) -> bool:
        """Whether the Stripe sandbox is used instead of Stripe."""
        return not (self.stripe_api_key.get_secret_value() or self.stripe_api_base)
