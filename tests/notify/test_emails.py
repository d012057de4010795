"""A receipt reads well in the donor's language and carries nobody's mischief."""

from __future__ import annotations

import email
import re
from datetime import UTC, datetime, tzinfo
from email.message import EmailMessage
from email.policy import default
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backbone.money import DIGITS, Money, decimal_string
from services.notify.emails import TRANSLATIONS, Donation, Recipient, build_receipt
from services.notify.transport import parse_sender

SENDER = parse_sender("Winter <receipts@winter.example>")
DONATION = Donation("pay_01", Money(100_000_000, "USD"), datetime(2022, 1, 7, tzinfo=UTC))


def receipt(
    *,
    name: str | None = "Sara",
    locale: str | None = "en",
    title: str = "Winter",
    to: str = "s@example.org",
    donation: Donation = DONATION,
    zone: tzinfo = UTC,
) -> EmailMessage:
    """The letter as its reader's program sees it."""
    message = build_receipt(donation, Recipient(to, name, locale, title), SENDER, zone)
    read = email.message_from_bytes(message.as_bytes(), policy=default)
    assert isinstance(read, EmailMessage)
    return read


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def test_every_language_has_every_phrase() -> None:
    assert {frozenset(phrases) for phrases in TRANSLATIONS.values()} == {frozenset(TRANSLATIONS["en"])}


def test_english_receipt_formats_subject_amount_and_date() -> None:
    message = receipt()
    assert message["Subject"] == "Your receipt: $1,000,000.00 for Winter"
    assert message["Content-Language"] == "en"
    assert "January 7, 2022 (Coordinated Universal Time)" in body(message, "plain")


def test_arabic_receipt_is_right_to_left() -> None:
    message = receipt(locale="ar-SA", title="لنجعل شتاءهم أدفأ")
    assert "لنجعل شتاءهم أدفأ" in str(message["Subject"])
    assert 'dir="rtl"' in body(message, "html")
    assert "شكرًا لك" in body(message, "plain")
    assert "1,000,000.00" in body(message, "plain")


@pytest.mark.parametrize("locale", ["en", "ar"])
@pytest.mark.parametrize("currency", sorted(DIGITS))
def test_amount_is_exact_in_subject_and_bodies_in_every_currency(currency: str, locale: str) -> None:
    money = Money(123_456_789, currency)
    whole, _, part = decimal_string(money.minor_units, currency).partition(".")
    amount = f"{int(whole):,}" + (f".{part}" if part else "")
    message = receipt(locale=locale, donation=Donation("pay_01", money, DONATION.at))
    for text in (str(message["Subject"]), body(message, "plain"), body(message, "html")):
        assert re.search(rf"(?<![0-9.,]){re.escape(amount)}(?![0-9]|[.,][0-9])", text)


@pytest.mark.parametrize(
    ("zone", "english", "arabic"),
    [
        ("UTC", "December 31, 2026 (Coordinated Universal Time)", "31 ديسمبر 2026 (التوقيت العالمي المنسق)"),
        ("Asia/Riyadh", "January 1, 2027 (Arabian Standard Time)", "1 يناير 2027 (التوقيت العربي الرسمي)"),
        ("America/New_York", "December 31, 2026 (Eastern Standard Time)", "31 ديسمبر 2026 ("),
        ("Asia/Kathmandu", "January 1, 2027 (", "1 يناير 2027 ("),
    ],
)
def test_date_is_in_the_configured_time_zone_and_names_it(zone: str, english: str, arabic: str) -> None:
    donation = Donation("pay_01", DONATION.amount, datetime(2026, 12, 31, 21, 30, tzinfo=UTC))
    assert english in body(receipt(donation=donation, zone=ZoneInfo(zone)), "plain")
    assert arabic in body(receipt(donation=donation, zone=ZoneInfo(zone), locale="ar"), "html")


@given(st.lists(st.sampled_from(["شتاء", "Winter", "🎉", "José", "لـ"]), min_size=1, max_size=20))
def test_folded_subject_keeps_its_spaces(words: list[str]) -> None:
    title = " ".join(words)[:150].strip()
    assert str(receipt(title=title)["Subject"]) == f"Your receipt: $1,000,000.00 for {title}"
    assert str(receipt(title=title, to="a@مثال.example")["Subject"]).endswith(title)


def test_english_receipt_contains_no_bidi_isolates() -> None:
    message = receipt(donation=Donation("pay_01", Money(5250, "KWD"), DONATION.at))
    assert message["Subject"] == "Your receipt: KWD\u00a05.250 for Winter"


@pytest.mark.parametrize("locale", [None, "en-GB", "tlh", "fr"])
def test_unsupported_locale_falls_back_to_english(locale: str | None) -> None:
    assert "thank you" in body(receipt(locale=locale), "plain")


def test_name_is_escaped_and_title_cannot_add_a_header() -> None:
    message = receipt(name="<script>x</script>", title="Winter\r\nBcc: everyone@example.org")
    assert "<script>" not in body(message, "html")
    assert message["Bcc"] is None
    assert message["Subject"] == "Your receipt: $1,000,000.00 for Winter Bcc: everyone@example.org"


def test_receipt_without_a_name_has_a_generic_greeting() -> None:
    assert "Dear friend," in body(receipt(name=None), "plain")


def test_receipt_bytes_are_deterministic() -> None:
    to = Recipient("s@example.org", "سارة", "ar", "شتاء")
    first, second = (build_receipt(DONATION, to, SENDER, UTC) for _ in range(2))
    assert first.as_bytes() == second.as_bytes()


def test_amount_has_the_digits_of_its_currency() -> None:
    for money, text in ((Money(2500, "JPY"), "¥2,500"), (Money(2500, "KWD"), "KWD\u00a02.500")):
        message = build_receipt(
            Donation("pay_01", money, DONATION.at), Recipient("s@example.org", None, None, "W"), SENDER, UTC
        )
        assert text in body(message, "plain")


@pytest.mark.parametrize("address", ["a\r\nBcc: b@example.org", "a@b, c@d", ""])
def test_invalid_address_is_rejected_without_appearing_in_the_error(address: str) -> None:
    with pytest.raises(ValueError, match="address") as refused:
        receipt(to=address)
    assert "@" not in str(refused.value)
