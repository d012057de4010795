"""Settings of notify, from the environment."""

from __future__ import annotations

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from pydantic import Field, SecretStr, field_validator

from backbone.database.database import Synchronous
from backbone.settings import DatabaseUrl, HttpUrl, Settings
from services.notify.transport import MailServer, parse_mail_server, parse_sender


def parse_time_zone(name: str) -> tzinfo:
    """The time zone that the IANA database calls `name`. Raises ValueError."""
    if name == "UTC":
        return UTC  # needs no database
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # a path, a folder, not there
        raise ValueError("must be a time zone of the IANA database such as Asia/Riyadh") from None


class NotifySettings(Settings):
    """Settings of notify."""

    notify_port: int = Field(
        8004, ge=0, le=65535, description="Port of notify, where it is a process of its own."
    )
    url_pledges: HttpUrl = Field(
        "http://127.0.0.1:8001", description="Where pledges is, for the services in other processes."
    )
    database_url_notify: DatabaseUrl = Field(
        "", description="Database of notify, postgresql://…; empty: SQLite in the data directory."
    )
    database_synchronous: Synchronous = Field(
        "FULL", description="How durable a commit on SQLite is: FULL, NORMAL or OFF."
    )
    smtp_url: SecretStr = Field(
        SecretStr(""),
        description="Where receipts are sent: smtp:// (TLS where offered), smtp+starttls:// (TLS or "
        "nothing) or smtps://, then user:password@host:port; empty: .eml files under the data directory.",
    )
    receipt_from: str = Field("Ataa <receipts@localhost>", description="Sender of receipts.")
    receipts_per_s: float = Field(
        10.0, gt=0, le=1000, description="Receipts sent a second, at most; giving comes first."
    )

    time_zone: str = Field(
        "UTC", description="Time zone of the dates on receipts, such as Asia/Riyadh: the tax year is its."
    )

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, value: str) -> str:
        parse_time_zone(value)
        return value

    @field_validator("smtp_url")
    @classmethod
    def _check_mail_server(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value():
            parse_mail_server(value.get_secret_value())
        return value

    @field_validator("receipt_from")
    @classmethod
    def _check_sender(cls, value: str) -> str:
        parse_sender(value)
        return value

    def database_url(self) -> str:
        """The URL of the database of notify."""
        return self.database_url_notify or f"sqlite:///{self.data_dir / 'notify.db'}"

    def mail_server(self) -> MailServer | None:
        """The mail server that sends receipts; None: they are written to files."""
        url = self.smtp_url.get_secret_value()
        return parse_mail_server(url) if url else None
