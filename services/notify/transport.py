"""Email transports: to a mail server, or into files where none is configured."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import aiosmtplib

TIMEOUT_S: Final = 15.0
_PORTS: Final = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}


@dataclass(frozen=True, slots=True)
class DeliveryFailure:
    """Why an email was not sent; `final` where trying again cannot help. Contains no address."""

    reason: str
    final: bool = False


@dataclass(frozen=True, slots=True)
class OutgoingEmail:
    """A message and the name of its file in a `FolderTransport`."""

    name: str
    message: EmailMessage


class MailTransport(Protocol):
    """Sends emails."""

    async def deliver(self, emails: Sequence[OutgoingEmail]) -> list[DeliveryFailure | None]:
        """Send `emails`; the outcome of each, in order: None where it was sent, else why not."""
        ...


@dataclass(frozen=True, slots=True)
class MailServer:
    """The address, credentials and TLS mode of a mail server."""

    host: str
    port: int
    user: str | None
    password: str | None
    tls: bool
    starttls: bool | None
    """True: STARTTLS is required; False: it is not used; None: it is used where the server offers it."""


def parse_mail_server(url: str) -> MailServer:
    """The server an address such as `smtps://user:password@host:465` names. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("must be smtp://, smtp+starttls:// or smtps://, then user:password@host:port")
    return MailServer(
        host=parts.hostname,
        port=parts.port or _PORTS[parts.scheme],
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=parts.scheme == "smtps",
        starttls={"smtp": None, "smtp+starttls": True, "smtps": False}[parts.scheme],
    )


def parse_sender(text: str) -> Address:
    """The sender that `Name <address>` names. Raises ValueError."""
    name, address = parseaddr(text)
    user, at, domain = address.rpartition("@")
    if not (user and at and domain) or not address.isascii():
        raise ValueError("must be an address such as Ataa <receipts@example.org>")
    return Address(name, user, domain)


class SmtpTransport:
    """Sends each batch over one connection."""

    def __init__(self, server: MailServer) -> None:
        self._server = server

    async def deliver(self, emails: Sequence[OutgoingEmail]) -> list[DeliveryFailure | None]:
        """See `MailTransport.deliver`."""
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.tls,
            start_tls=server.starttls,
            timeout=TIMEOUT_S,
        )
        outcomes: list[DeliveryFailure | None] = []
        try:
            async with client:
                for email in emails:
                    outcomes.append(await _send(client, email))
        except (aiosmtplib.SMTPException, OSError) as error:
            # The connection broke: an email without an outcome was not sent, or it is unknown whether it was.
            unavailable = DeliveryFailure(f"mail server: {type(error).__name__}")
            outcomes += [unavailable] * (len(emails) - len(outcomes))
        return outcomes


async def _send(client: aiosmtplib.SMTP, email: OutgoingEmail) -> DeliveryFailure | None:
    """Send one email; raises where the connection is lost."""
    try:
        await client.send_message(email.message)
    except aiosmtplib.SMTPRecipientsRefused as error:
        codes = sorted({refusal.code for refusal in error.recipients})
        return DeliveryFailure(f"recipient refused: {codes}", final=all(code >= 500 for code in codes))
    except aiosmtplib.SMTPResponseException as error:
        if error.code == 421 or not client.is_connected:  # RFC 5321, section 3.8: it is closing
            raise
        return DeliveryFailure(f"mail server answered {error.code}", final=error.code >= 500)
    except aiosmtplib.SMTPNotSupported:
        return DeliveryFailure("mail server does not take such an address", final=True)
    return None


class FolderTransport:
    """Writes each email to `<folder>/<name>.eml`, whole or not at all; written again, it is the same."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def deliver(self, emails: Sequence[OutgoingEmail]) -> list[DeliveryFailure | None]:
        """See `MailTransport.deliver`."""
        outcomes: list[DeliveryFailure | None] = []
        for email in emails:
            outcomes.append(self._write(email))
            await asyncio.sleep(0)  # lets other tasks run
        return outcomes

    def _write(self, email: OutgoingEmail) -> DeliveryFailure | None:
        partial = self._folder / f".{email.name}.part"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial.write_bytes(email.message.as_bytes())
            os.replace(partial, self._folder / f"{email.name}.eml")
        except OSError as error:
            return DeliveryFailure(f"file: {error.strerror}")
        return None
