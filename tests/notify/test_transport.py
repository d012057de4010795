"""One suite for every way a letter may leave, then what is particular to mail servers."""

from __future__ import annotations

import asyncio
import email
import os
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP as SmtpServer
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from pydantic import SecretStr, ValidationError

from backbone import ids
from backbone.settings import load
from services.notify.settings import NotifySettings
from services.notify.transport import (
    DeliveryFailure,
    FolderTransport,
    MailTransport,
    OutgoingEmail,
    SmtpTransport,
    parse_mail_server,
    parse_sender,
)
from tests.notify.harness import Harness, counted
from tests.ports import free_port


class FakeMailServer:
    """What a mail server received, and how it answers."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.answers: dict[str, str] = {}
        """By recipient: how RCPT is answered, if not with 250."""
        self.data_answer = "250 OK"

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if (answer := self.answers.get(address)) is not None:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        if self.data_answer.startswith("2"):
            assert isinstance(envelope.content, bytes)
            self.messages.append(envelope.content)
        return self.data_answer


@pytest.fixture
def mailbox() -> FakeMailServer:
    return FakeMailServer()


@pytest.fixture
def server(mailbox: FakeMailServer) -> Iterator[str]:
    """A mail server of its own; its address."""
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield f"smtp://127.0.0.1:{controller.port}"
    controller.stop()


class Received(Protocol):
    """The letters that arrived, as bytes."""

    def __call__(self) -> list[bytes]: ...


@pytest.fixture(params=["folder", "mail server"])
def delivery(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[MailTransport, Received]:
    """A post and what arrived through it."""
    if request.param == "folder":
        return FolderTransport(tmp_path), lambda: [
            file.read_bytes() for file in sorted(tmp_path.glob("*.eml"))
        ]
    mailbox: FakeMailServer = request.getfixturevalue("mailbox")
    return SmtpTransport(parse_mail_server(request.getfixturevalue("server"))), lambda: mailbox.messages


def an_email(name: str, to: str = "sara@example.org", text: str = "thank you") -> OutgoingEmail:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "receipts@winter.example", to, "شكرا"
    message["Message-ID"] = f"<{name}@winter.example>"
    message.set_content(text)
    return OutgoingEmail(name, message)


async def test_every_email_is_delivered_intact(delivery: tuple[MailTransport, Received]) -> None:
    transport, received = delivery
    assert await transport.deliver([an_email("a", text="وصل"), an_email("b")]) == [None, None]
    arrived = [email.message_from_bytes(one, policy=default) for one in received()]
    assert [one["Message-ID"] for one in arrived] == ["<a@winter.example>", "<b@winter.example>"]
    assert arrived[0]["Subject"] == "شكرا"
    assert arrived[0].get_content().strip() == "وصل"


async def test_email_written_twice_to_a_folder_is_one_file(tmp_path: Path) -> None:
    transport = FolderTransport(tmp_path)
    await transport.deliver([an_email("a")])
    await transport.deliver([an_email("a")])
    assert os.listdir(tmp_path) == ["a.eml"]


async def test_rejected_recipient_fails_permanently_and_alone(server: str, mailbox: FakeMailServer) -> None:
    mailbox.answers = {"gone@example.org": "550 no such user", "full@example.org": "452 mailbox full"}
    transport = SmtpTransport(parse_mail_server(server))
    outcomes = await transport.deliver(
        [an_email("a", "gone@example.org"), an_email("b", "full@example.org"), an_email("c")]
    )
    gone, full, fine = outcomes
    assert isinstance(gone, DeliveryFailure)
    assert gone.final
    assert "example.org" not in gone.reason
    assert isinstance(full, DeliveryFailure)
    assert not full.final
    assert fine is None
    assert len(mailbox.messages) == 1


async def test_unreachable_mail_server_fails_every_email_temporarily() -> None:
    transport = SmtpTransport(parse_mail_server(f"smtp://127.0.0.1:{free_port()}"))
    outcomes = await transport.deliver([an_email("a"), an_email("b")])
    assert all(isinstance(one, DeliveryFailure) and not one.final for one in outcomes)


async def test_closing_mail_server_fails_the_remaining_emails_temporarily(
    server: str, mailbox: FakeMailServer
) -> None:
    mailbox.data_answer = "421 closing"
    transport = SmtpTransport(parse_mail_server(server))
    outcomes = await transport.deliver([an_email("a"), an_email("b")])
    assert all(isinstance(one, DeliveryFailure) and not one.final for one in outcomes)


async def test_receipt_is_sent_once_the_mail_server_is_back(tmp_path: Path, mailbox: FakeMailServer) -> None:
    port = free_port()
    harness = Harness(tmp_path, smtp_url=SecretStr(f"smtp://127.0.0.1:{port}"))
    payment = ids.new("pay")
    await harness.queue(counted(payment, pledge=harness.donor()))
    async with harness.manual_sender() as sender:
        await sender.send_due()
        row = await harness.settled(payment, "due", tries=1)
        assert "mail server" in row.reason
        controller = Controller(mailbox, hostname="127.0.0.1", port=port)
        await asyncio.to_thread(controller.start)
        try:
            harness.clock.move(10)
            await sender.send_due()
        finally:
            await asyncio.to_thread(controller.stop)
    await harness.settled(payment, "sent", tries=2)
    (arrived,) = mailbox.messages
    assert f"<receipt.{payment}@winter.example>".encode() in arrived


@pytest.fixture
async def authenticated_port(mailbox: FakeMailServer) -> AsyncIterator[str]:
    """A mail server that takes letters only from `winter` with the password `p@ss`; its port."""

    def check(
        server: SmtpServer, session: Any, envelope: Envelope, mechanism: str, login: LoginPassword
    ) -> AuthResult:
        return AuthResult(success=login.login == b"winter" and login.password == b"p@ss", handled=False)

    controller = Controller(
        mailbox, hostname="127.0.0.1", port=free_port(), auth_required=True, auth_require_tls=False,
        authenticator=check,
    )  # fmt: skip
    await asyncio.to_thread(controller.start)
    yield str(controller.port)
    await asyncio.to_thread(controller.stop)


@pytest.mark.filterwarnings("ignore:Requiring AUTH:UserWarning")
async def test_credentials_are_read_from_the_url(authenticated_port: str, mailbox: FakeMailServer) -> None:
    transport = SmtpTransport(parse_mail_server(f"smtp://winter:p%40ss@127.0.0.1:{authenticated_port}"))
    assert await transport.deliver([an_email("a")]) == [None]
    wrong = SmtpTransport(parse_mail_server(f"smtp://winter:no@127.0.0.1:{authenticated_port}"))
    (failure,) = await wrong.deliver([an_email("b")])
    assert isinstance(failure, DeliveryFailure)
    assert not failure.final
    assert len(mailbox.messages) == 1


async def test_required_starttls_fails_when_not_offered(server: str, mailbox: FakeMailServer) -> None:
    transport = SmtpTransport(parse_mail_server(server.replace("smtp://", "smtp+starttls://")))
    (failure,) = await transport.deliver([an_email("a")])
    assert isinstance(failure, DeliveryFailure)
    assert mailbox.messages == []


def test_default_port_depends_on_the_scheme() -> None:
    assert parse_mail_server("smtp://mail.example").port == 25
    assert parse_mail_server("smtp+starttls://mail.example").starttls is True
    assert parse_mail_server("smtps://mail.example").port == 465
    assert parse_mail_server("smtps://mail.example").tls


@pytest.mark.parametrize("url", ["mail.example", "http://mail.example", "smtp://", "smtp://mail:port"])
def test_invalid_mail_server_url_is_rejected(url: str) -> None:
    with pytest.raises(ValidationError):
        NotifySettings(smtp_url=SecretStr(url))


@pytest.mark.parametrize("sender", ["", "nobody", "Ataa <@example.org>", "a@b@c <>"])
def test_invalid_sender_is_rejected(sender: str) -> None:
    with pytest.raises(ValidationError):
        NotifySettings(receipt_from=sender)


def test_sender_may_have_a_display_name() -> None:
    assert parse_sender("عطاء <receipts@example.org>").display_name == "عطاء"


@pytest.mark.parametrize("name", ["UTC", "Asia/Riyadh", "America/Argentina/Buenos_Aires"])
def test_iana_time_zone_is_accepted(name: str) -> None:
    assert NotifySettings(time_zone=name).time_zone == name


@pytest.mark.parametrize(
    "name", ["", "Riyadh", "+03:00", "asia", "../etc/localtime", "/etc/localtime", "Asia/X"]
)
def test_invalid_time_zone_stops_startup_with_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATAA_TIME_ZONE", name)
    with pytest.raises(SystemExit):
        load(NotifySettings)
    printed = capsys.readouterr().err
    assert printed == "ataa: ATAA_TIME_ZONE: must be a time zone of the IANA database such as Asia/Riyadh\n"
