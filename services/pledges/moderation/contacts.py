"""Telephone numbers, mail addresses without a dot, and postal addresses in a text.

Numbers that are none are common in messages: amounts, dates, verses. A number counts as a telephone number
from eight digits on, or from seven with an international prefix, unless it is a date or a round amount.
"""

from __future__ import annotations

import re
from typing import Final

MIN_DIGITS: Final = 8
MIN_INTERNATIONAL_DIGITS: Final = 7

_NUMBER: Final = re.compile(r"\+?\d(?:(?:[\s().\-_/*·•|~=+]{0,3}|[,،٫٬])\d){6,}")
_MOMENT: Final = re.compile(
    r"(?<!\d)(?:(?:19|20)\d\d[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d\d"
    r"|(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d|\d{1,2}:\d\d)(?!\d)"
)
"""A date, two years, a time of day: no part of a telephone number."""
_ROUND: Final = re.compile(r"[1-9]\d{0,2}(?:[ .]?\d{3})*[ .]?000|[1-9]\d{0,2}(?:[,٬]\d{3}){1,2}")
"""Thousands, or an amount in groups of three."""

_LOOK: Final = re.compile(
    r"(?<=\d)[\s.-]?[oil|]{1,3}(?=[\s.-]?\d)|(?<!\w)o(?=[\s.-]?\d[\s.-]?\d)|(?<=\d)[اه]{1,3}(?=\d)"
)
_LOOKS: Final = str.maketrans("oil|اه", "011115")
"""Letters that look like digits, among digits."""
_NAMES: Final = {
    **{name: digit for digit, names in enumerate((
        "zero oh صفر", "one واحد واحده", "two اثنين اثنان اتنين", "three ثلاثه تلاته ثلاث",
        "four اربعه اربع", "five خمسه خمس", "six سته ست", "seven سبعه سبع",
        "eight ثمانيه تمانيه ثماني ثمان", "nine تسعه تسع",
    )) for name in names.split()},
}  # fmt: skip
_NAME: Final = re.compile(rf"\b(?:{'|'.join(sorted(_NAMES, key=len, reverse=True))})\b")
MIN_NAMES: Final = 4
"""So many digits written as words may be a telephone number."""

_PROVIDERS: Final = (
    *("gmail", "g mail", "hotmail", "yahoo", "outlook", "icloud", "proton"),
    *("جيميل", "هوتميل", "ياهو", "اوتلوك"),
)
_MAIL: Final = re.compile(
    rf"\S\s*(?:@|[\[({{<_*-]\s*at\s*[\])}}>_*-]|\b(?:at|ات)\b)\s*(?:{'|'.join(_PROVIDERS)})"
)

_POSTAL: Final = re.compile(
    r"\b\d{1,5}[a-z]?,?\s+(?:\w+\s+){1,3}(?:street|st|avenue|ave|road|rd|lane|boulevard|blvd)\b"
    r"|\bp\.?\s?o\.?\s?box\s*\d"
    r"|(?:صندوق\s+بريد|ص\s?[.]?\s?ب)\s*[:.]?\s*\d"
    r"|(?:شارع|طريق|حي)\s+(?:\w+\s+){1,4}(?:رقم\s+)?\d"
    r"|(?:شقه|عماره|فيلا|مبني|بلوك|منزل|بيت)\s+(?:رقم\s+)?\d{1,5}\b"
)


def has_phone(folded: str) -> bool:
    """Whether a folded text has a telephone number.

    Its digits may be spaced, spelled as words, or replaced by letters that look like them.
    """
    text = _MOMENT.sub(" # ", folded)
    if len(_NAME.findall(text)) >= MIN_NAMES:
        text = _NAME.sub(lambda found: str(_NAMES[found[0]]), text)
    if sum(map(str.isdigit, text)) < MIN_INTERNATIONAL_DIGITS - 2:
        return False
    text = _LOOK.sub(lambda found: found[0].translate(_LOOKS), text)
    return any(_is_phone(found[0]) for found in _NUMBER.finditer(text))


def _is_phone(number: str) -> bool:
    digits = re.sub(r"\D", "", number)
    if number.startswith("+") or digits.startswith("00"):
        return len(digits) >= MIN_INTERNATIONAL_DIGITS and bool(digits.strip("0"))
    return len(digits) >= MIN_DIGITS and _ROUND.fullmatch(number) is None


def has_address(folded: str) -> bool:
    """Whether a folded text has a mail address, as far as it is not a link, or a postal address."""
    if any(provider in folded for provider in _PROVIDERS) and _MAIL.search(folded) is not None:
        return True
    return any(map(str.isdigit, folded)) and _POSTAL.search(folded) is not None
