"""A receipt as an email: text and HTML, in the donor's language, with the same bytes whenever it is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from email.errors import HeaderParseError
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, Policy
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

from babel.dates import format_date, get_timezone_name
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from backbone.money import Money, decimal_string
from backbone.money_text import money_text

_TEMPLATES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(("html",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

TRANSLATIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {
        "subject": "Your receipt: {amount} for {title}",
        "greeting": "Dear {name},",
        "greeting_without_name": "Dear friend,",
        "thanks": "thank you. Your donation has arrived and is already counted.",
        "amount": "Amount",
        "drive": "For",
        "date": "Date",
        "reference": "Receipt number",
        "keep": "Please keep this letter as your receipt.",
        "proof": "The drive's public log lists your gift under this receipt number, without your name.",
        "direction": "ltr",
    },
    "ar": {
        "subject": "إيصال تبرعك: {amount} لـ {title}",
        "greeting": "عزيزنا {name}،",
        "greeting_without_name": "صديقنا العزيز،",
        "thanks": "شكرًا لك. لقد وصل تبرعك واحتُسب.",
        "amount": "المبلغ",
        "drive": "الحملة",
        "date": "التاريخ",
        "reference": "رقم الإيصال",
        "keep": "يُرجى الاحتفاظ بهذه الرسالة إيصالًا لتبرعك.",
        "proof": "تبرعك مدوّن في السجل العلني للحملة برقم الإيصال هذا، من دون اسمك.",
        "direction": "rtl",
    },
}

_WITHOUT_ISOLATES: Final = dict.fromkeys(map(ord, "\u2066\u2069"))
"""Removes the isolates: left-to-right text needs none, and some mail programs show them as boxes."""


@dataclass(frozen=True, slots=True)
class Donation:
    """What the receipt is for."""

    payment_id: str
    amount: Money
    at: datetime


@dataclass(frozen=True, slots=True)
class Recipient:
    """The recipient, as pledges has it at this moment."""

    email: str
    name: str | None
    locale: str | None
    title: str


class _Subject(str):
    """A subject that keeps its spaces when it is folded.

    Python before 3.12.4 drops those that fall between two encoded words (python/cpython#92081).
    """

    name = "Subject"  # with a name and `fold` it is a header already: the policy stores it as it is

    def fold(self, *, policy: Policy) -> str:
        """The header's lines, in encoded words (RFC 2047) outside ASCII."""
        charset = "us-ascii" if self.isascii() else "utf-8"
        lines = Header(str(self), charset, header_name=self.name).encode(linesep=policy.linesep)
        return f"{self.name}: {lines}{policy.linesep}"


def build_receipt(donation: Donation, to: Recipient, sender: Address, zone: tzinfo) -> EmailMessage:
    """The email. Its Message-ID and bytes follow from the donation, so that one sent twice is shown once.

    Its date, and with it the tax year, is that of `zone`, which it names.
    Raises ValueError for an address that no email can have.
    """
    language = _language(to.locale)
    values = _template_values(donation, to, language, zone)
    message = EmailMessage(policy=SMTP if to.email.isascii() else SMTPUTF8)
    try:
        message["From"] = sender
        message["To"] = Address(addr_spec=to.email)  # one address, not a list that looks like one
        message["Subject"] = _Subject(values["subject"])
        message["Date"] = format_datetime(donation.at)
        message["Message-ID"] = f"<receipt.{donation.payment_id}@{sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834, section 5
    except (ValueError, IndexError, HeaderParseError) as error:  # the parser's own ways to refuse
        raise ValueError(f"the address cannot be used: {type(error).__name__}") from None
    message.set_content(_TEMPLATES.get_template("receipt.txt").render(values))
    message.add_alternative(_TEMPLATES.get_template("receipt.html").render(values), subtype="html")
    message["Content-Language"] = language  # last: setting the content drops every Content- header
    message.set_boundary(f"=_{donation.payment_id}")
    return message


def _language(locale: str | None) -> str:
    wanted = (locale or "en").partition("-")[0].lower()
    return wanted if wanted in TRANSLATIONS else "en"


def _template_values(donation: Donation, to: Recipient, language: str, zone: tzinfo) -> dict[str, Any]:
    translations = TRANSLATIONS[language]
    money = donation.amount
    amount = money_text(decimal_string(money.minor_units, money.currency), money.currency, language)
    if translations["direction"] == "ltr":
        amount = amount.translate(_WITHOUT_ISOLATES)
    title = " ".join(to.title.split())
    greeting = translations["greeting"] if to.name else translations["greeting_without_name"]
    return {
        "language": language,
        "direction": translations["direction"],
        "subject": translations["subject"].format(amount=amount, title=title[:150]),
        "greeting": greeting.format(name=to.name),
        "thanks": translations["thanks"],
        "keep": translations["keep"],
        "proof": translations["proof"],
        "lines": [
            (translations["amount"], amount),
            (translations["drive"], title),
            (translations["date"], _date(donation.at.astimezone(zone), language)),
            (translations["reference"], donation.payment_id),
        ],
    }


def _date(at: datetime, language: str) -> str:
    """Such as `January 1, 2027 (Arabian Standard Time)`."""
    return f"{format_date(at, format='long', locale=language)} ({get_timezone_name(at, locale=language)})"
