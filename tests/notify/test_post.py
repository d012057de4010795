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
from services.notify.post import Failure, FolderPost, Letter, Post, SmtpPost, read_mail_server, read_sender
from services.notify.settings import NotifySettings
from tests.notify.stage import Stage, counted
from tests.ports import free_port


class Mailbox:
    """What a mail server received, and how it answers."""

    def __init__(self) -> None:
        self.letters: list[bytes] = []
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
            self.letters.append(envelope.content)
        return self.data_answer


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def server(mailbox: Mailbox) -> Iterator[str]:
    """A mail server of its own; its address."""
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield f"smtp://127.0.0.1:{controller.port}"
    controller.stop()


class Received(Protocol):
    """The letters that arrived, as bytes."""

    def __call__(self) -> list[bytes]: ...


@pytest.fixture(params=["folder", "mail server"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Post, Received]:
    """A post and what arrived through it."""
    if request.param == "folder":
        return FolderPost(tmp_path), lambda: [file.read_bytes() for file in sorted(tmp_path.glob("*.eml"))]
    mailbox: Mailbox = request.getfixturevalue("mailbox")
    return SmtpPost(read_mail_server(request.getfixturevalue("server"))), lambda: mailbox.letters


def letter(name: str, to: str = "sara@example.org", text: str = "thank you") -> Letter:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "receipts@winter.example", to, "شكرا"
    message["Message-ID"] = f"<{name}@winter.example>"
    message.set_content(text)
    return Letter(name, message)


async def test_every_letter_arrives_whole(way: tuple[Post, Received]) -> None:
    post, received = way
    assert await post.deliver([letter("a", text="وصل"), letter("b")]) == [None, None]
    arrived = [email.message_from_bytes(one, policy=default) for one in received()]
    assert [one["Message-ID"] for one in arrived] == ["<a@winter.example>", "<b@winter.example>"]
    assert arrived[0]["Subject"] == "شكرا"
    assert arrived[0].get_content().strip() == "وصل"


async def test_a_letter_written_twice_into_a_folder_is_there_once(tmp_path: Path) -> None:
    post = FolderPost(tmp_path)
    await post.deliver([letter("a")])
    await post.deliver([letter("a")])
    assert os.listdir(tmp_path) == ["a.eml"]


async def test_a_refused_recipient_fails_for_good_and_alone(server: str, mailbox: Mailbox) -> None:
    mailbox.answers = {"gone@example.org": "550 no such user", "full@example.org": "452 mailbox full"}
    post = SmtpPost(read_mail_server(server))
    outcomes = await post.deliver(
        [letter("a", "gone@example.org"), letter("b", "full@example.org"), letter("c")]
    )
    gone, full, fine = outcomes
    assert isinstance(gone, Failure)
    assert gone.final
    assert "example.org" not in gone.reason
    assert isinstance(full, Failure)
    assert not full.final
    assert fine is None
    assert len(mailbox.letters) == 1


async def test_a_mail_server_that_is_away_fails_every_letter_for_now() -> None:
    post = SmtpPost(read_mail_server(f"smtp://127.0.0.1:{free_port()}"))
    outcomes = await post.deliver([letter("a"), letter("b")])
    assert all(isinstance(one, Failure) and not one.final for one in outcomes)


async def test_a_mail_server_that_closes_fails_the_rest_for_now(server: str, mailbox: Mailbox) -> None:
    mailbox.data_answer = "421 closing"
    post = SmtpPost(read_mail_server(server))
    outcomes = await post.deliver([letter("a"), letter("b")])
    assert all(isinstance(one, Failure) and not one.final for one in outcomes)


async def test_a_mail_server_that_is_away_gets_the_receipt_later(tmp_path: Path, mailbox: Mailbox) -> None:
    port = free_port()
    stage = Stage(tmp_path, smtp_url=SecretStr(f"smtp://127.0.0.1:{port}"))
    payment = ids.new("pay")
    await stage.owe(counted(payment, pledge=stage.donor()))
    async with stage.by_hand() as sender:
        await sender.send_due()
        row = await stage.settled(payment, "due", tries=1)
        assert "mail server" in row.reason
        controller = Controller(mailbox, hostname="127.0.0.1", port=port)
        await asyncio.to_thread(controller.start)
        try:
            stage.clock.move(10)
            await sender.send_due()
        finally:
            await asyncio.to_thread(controller.stop)
    await stage.settled(payment, "sent", tries=2)
    (arrived,) = mailbox.letters
    assert f"<receipt.{payment}@winter.example>".encode() in arrived


@pytest.fixture
async def guarded(mailbox: Mailbox) -> AsyncIterator[str]:
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
async def test_user_and_password_come_from_the_address(guarded: str, mailbox: Mailbox) -> None:
    post = SmtpPost(read_mail_server(f"smtp://winter:p%40ss@127.0.0.1:{guarded}"))
    assert await post.deliver([letter("a")]) == [None]
    wrong = SmtpPost(read_mail_server(f"smtp://winter:no@127.0.0.1:{guarded}"))
    (failure,) = await wrong.deliver([letter("b")])
    assert isinstance(failure, Failure)
    assert not failure.final
    assert len(mailbox.letters) == 1


async def test_starttls_or_nothing_sends_nothing_where_it_is_not_offered(
    server: str, mailbox: Mailbox
) -> None:
    post = SmtpPost(read_mail_server(server.replace("smtp://", "smtp+starttls://")))
    (failure,) = await post.deliver([letter("a")])
    assert isinstance(failure, Failure)
    assert mailbox.letters == []


def test_ports_follow_the_kind_of_server() -> None:
    assert read_mail_server("smtp://mail.example").port == 25
    assert read_mail_server("smtp+starttls://mail.example").starttls is True
    assert read_mail_server("smtps://mail.example").port == 465
    assert read_mail_server("smtps://mail.example").tls


@pytest.mark.parametrize("url", ["mail.example", "http://mail.example", "smtp://", "smtp://mail:port"])
def test_a_wrong_mail_server_stops_the_start(url: str) -> None:
    with pytest.raises(ValidationError):
        NotifySettings(smtp_url=SecretStr(url))


@pytest.mark.parametrize("sender", ["", "nobody", "Ataa <@example.org>", "a@b@c <>"])
def test_a_wrong_sender_stops_the_start(sender: str) -> None:
    with pytest.raises(ValidationError):
        NotifySettings(receipt_from=sender)


def test_a_sender_may_have_a_name() -> None:
    assert read_sender("عطاء <receipts@example.org>").display_name == "عطاء"


@pytest.mark.parametrize("name", ["UTC", "Asia/Riyadh", "America/Argentina/Buenos_Aires"])
def test_a_time_zone_has_its_iana_name(name: str) -> None:
    assert NotifySettings(time_zone=name).time_zone == name


@pytest.mark.parametrize(
    "name", ["", "Riyadh", "+03:00", "asia", "../etc/localtime", "/etc/localtime", "Asia/X"]
)
def test_a_wrong_time_zone_stops_the_start_with_a_line_that_names_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATAA_TIME_ZONE", name)
    with pytest.raises(SystemExit):
        load(NotifySettings)
    said = capsys.readouterr().err
    assert said == "ataa: ATAA_TIME_ZONE: must be a time zone of the IANA database such as Asia/Riyadh\n"
