"""Telephone numbers, mail addresses without a dot, and postal addresses in a text.

Numbers that are none are common in messages: amounts, dates, verses. A number counts as a telephone number
from eight digits on, or from seven with an international prefix, unless it is a date or a round amount.
"""

from __future__ import annotations

import re
from typing import Final

MIN_DIGITS: Final = 8
MIN_INTERNATIONAL_DIGITS: Final = 7

_NUMBER: Final = re.compile(r"\+?\d(?:[\s().\-_/*·•]{0,3}\d){6,}")
_DATE: Final = re.compile(
    r"(?:(?:19|20)\d\d[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d\d)"
)
_YEARS: Final = re.compile(r"(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d")
_ROUND: Final = re.compile(r"[1-9]\d{0,2}(?:[ .]?\d{3})*[ .]?000")
_LETTER_O: Final = re.compile(r"(?<=\d)[\s.-]?o(?=[\s.-]?\d)|(?<!\w)o(?=[\s.-]?\d[\s.-]?\d)")

_PROVIDERS: Final = (
    *("gmail", "g mail", "hotmail", "yahoo", "outlook", "icloud", "protonmail"),
    *("جيميل", "هوتميل", "ياهو", "اوتلوك"),
)
_MAIL: Final = re.compile(rf"\S\s*(?:@|[\[(]\s*at\s*[\])]|\b(?:at|ات)\b)\s*(?:{'|'.join(_PROVIDERS)})")

_POSTAL: Final = re.compile(
    r"\b\d{1,5}[a-z]?,?\s+(?:\w+\s+){1,3}(?:street|st|avenue|ave|road|rd|lane|boulevard|blvd)\b"
    r"|\bp\.?\s?o\.?\s?box\s*\d"
    r"|(?:صندوق\s+بريد|ص\s?[.]?\s?ب)\s*[:.]?\s*\d"
    r"|(?:شارع|طريق|حي)\s+(?:\w+\s+){1,4}(?:رقم\s+)?\d"
    r"|(?:شقه|عماره|فيلا|مبني|بلوك|منزل|بيت)\s+(?:رقم\s+)?\d{1,5}\b"
)


def has_phone(folded: str) -> bool:
    """Whether a folded text has a telephone number; its digits may be spaced, and its zeros letters."""
    if sum(map(str.isdigit, folded)) < MIN_INTERNATIONAL_DIGITS - 2:
        return False
    zeros = _LETTER_O.sub("0", folded)
    return any(_is_phone(found[0]) for found in _NUMBER.finditer(zeros))


def _is_phone(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    if number.startswith("+") or digits.startswith("00"):
        return len(digits) >= MIN_INTERNATIONAL_DIGITS and bool(digits.strip("0"))
    return (
        len(digits) >= MIN_DIGITS
        and _DATE.fullmatch(number) is None
        and _YEARS.fullmatch(number) is None
        and _ROUND.fullmatch(number) is None
    )


def has_address(folded: str) -> bool:
    """Whether a folded text has a mail address, as far as it is not a link, or a postal address."""
    if any(provider in folded for provider in _PROVIDERS) and _MAIL.search(folded) is not None:
        return True
    return any(map(str.isdigit, folded)) and _POSTAL.search(folded) is not None
