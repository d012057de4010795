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
from services.notify.letters import PHRASES, Donation, Recipient, write_receipt
from services.notify.post import read_sender

SENDER = read_sender("Winter <receipts@winter.example>")
GIFT = Donation("pay_01", Money(100_000_000, "USD"), datetime(2022, 1, 7, tzinfo=UTC))


def receipt(
    *,
    name: str | None = "Sara",
    locale: str | None = "en",
    title: str = "Winter",
    to: str = "s@example.org",
    gift: Donation = GIFT,
    zone: tzinfo = UTC,
) -> EmailMessage:
    """The letter as its reader's program sees it."""
    letter = write_receipt(gift, Recipient(to, name, locale, title), SENDER, zone)
    read = email.message_from_bytes(letter.as_bytes(), policy=default)
    assert isinstance(read, EmailMessage)
    return read


def body(letter: EmailMessage, kind: str) -> str:
    part = letter.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def test_every_language_says_everything() -> None:
    assert {frozenset(phrases) for phrases in PHRASES.values()} == {frozenset(PHRASES["en"])}


def test_it_is_in_english_with_the_amount_written_as_english_does() -> None:
    letter = receipt()
    assert letter["Subject"] == "Your receipt: $1,000,000.00 for Winter"
    assert letter["Content-Language"] == "en"
    assert "January 7, 2022 (Coordinated Universal Time)" in body(letter, "plain")


def test_it_is_in_arabic_from_right_to_left() -> None:
    letter = receipt(locale="ar-SA", title="لنجعل شتاءهم أدفأ")
    assert "لنجعل شتاءهم أدفأ" in str(letter["Subject"])
    assert 'dir="rtl"' in body(letter, "html")
    assert "شكرًا لك" in body(letter, "plain")
    assert "1,000,000.00" in body(letter, "plain")


@pytest.mark.parametrize("locale", ["en", "ar"])
@pytest.mark.parametrize("currency", sorted(DIGITS))
def test_every_currencys_amount_is_exact_in_the_subject_and_in_both_bodies(
    currency: str, locale: str
) -> None:
    money = Money(123_456_789, currency)
    whole, _, part = decimal_string(money.minor_units, currency).partition(".")
    amount = f"{int(whole):,}" + (f".{part}" if part else "")
    letter = receipt(locale=locale, gift=Donation("pay_01", money, GIFT.at))
    for text in (str(letter["Subject"]), body(letter, "plain"), body(letter, "html")):
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
def test_a_date_is_that_of_the_installations_time_zone_and_names_it(
    zone: str, english: str, arabic: str
) -> None:
    gift = Donation("pay_01", GIFT.amount, datetime(2026, 12, 31, 21, 30, tzinfo=UTC))
    assert english in body(receipt(gift=gift, zone=ZoneInfo(zone)), "plain")
    assert arabic in body(receipt(gift=gift, zone=ZoneInfo(zone), locale="ar"), "html")


@given(st.lists(st.sampled_from(["شتاء", "Winter", "🎉", "José", "لـ"]), min_size=1, max_size=20))
def test_a_subject_keeps_its_spaces_wherever_its_lines_break(words: list[str]) -> None:
    title = " ".join(words)[:150].strip()
    assert str(receipt(title=title)["Subject"]) == f"Your receipt: $1,000,000.00 for {title}"
    assert str(receipt(title=title, to="a@مثال.example")["Subject"]).endswith(title)


def test_an_english_receipt_holds_no_invisible_isolates() -> None:
    letter = receipt(gift=Donation("pay_01", Money(5250, "KWD"), GIFT.at))
    assert letter["Subject"] == "Your receipt: KWD\u00a05.250 for Winter"


@pytest.mark.parametrize("locale", [None, "en-GB", "tlh", "fr"])
def test_other_languages_are_answered_in_english(locale: str | None) -> None:
    assert "thank you" in body(receipt(locale=locale), "plain")


def test_a_name_cannot_bring_markup_and_a_title_no_header() -> None:
    letter = receipt(name="<script>x</script>", title="Winter\r\nBcc: everyone@example.org")
    assert "<script>" not in body(letter, "html")
    assert letter["Bcc"] is None
    assert letter["Subject"] == "Your receipt: $1,000,000.00 for Winter Bcc: everyone@example.org"


def test_without_a_name_it_greets_a_friend() -> None:
    assert "Dear friend," in body(receipt(name=None), "plain")


def test_it_is_the_same_letter_however_often_it_is_written() -> None:
    to = Recipient("s@example.org", "سارة", "ar", "شتاء")
    first, second = (write_receipt(GIFT, to, SENDER, UTC) for _ in range(2))
    assert first.as_bytes() == second.as_bytes()


def test_amounts_have_their_currencys_digits() -> None:
    for money, text in ((Money(2500, "JPY"), "¥2,500"), (Money(2500, "KWD"), "KWD\u00a02.500")):
        letter = write_receipt(
            Donation("pay_01", money, GIFT.at), Recipient("s@example.org", None, None, "W"), SENDER, UTC
        )
        assert text in body(letter, "plain")


@pytest.mark.parametrize("address", ["a\r\nBcc: b@example.org", "a@b, c@d", ""])
def test_an_address_no_letter_can_have_is_refused_without_being_named(address: str) -> None:
    with pytest.raises(ValueError, match="address") as refused:
        receipt(to=address)
    assert "@" not in str(refused.value)
