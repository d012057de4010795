"""The language of a page, and the format of its numbers and money.

Arabic pages use Latin digits unless the query has `digits=arab`: totals are quoted, compared with the payment
page and read by viewers from every country, and both kinds of digits are common in Arabic.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from babel import Locale
from babel.numbers import format_decimal

from backbone.money_text import Numerals, in_numerals, money_text
from gateway.pages.phrases import Phrase
from gateway.pages.translations import TRANSLATIONS

Lang = Literal["en", "ar"]
_ASKED: Final = re.compile(r"\s*([A-Za-z]{2})[A-Za-z-]*\s*(?:;\s*q=([0-9.]+))?\s*")


@dataclass(frozen=True)
class Voice:
    """A language and its digits."""

    lang: Lang
    digits: Numerals

    @property
    def direction(self) -> str:
        return "rtl" if self.lang == "ar" else "ltr"

    @property
    def other(self) -> Lang:
        return "en" if self.lang == "ar" else "ar"

    def money(self, value: str, currency: str) -> str:
        """`value`, exact to the currency's last digit; without its decimals if they are all zero."""
        return money_text(value, currency, self.lang, self.digits, short=True)

    def numerals(self, text: str) -> str:
        """`text` with its digits in the voice's form."""
        return in_numerals(text, self.digits)

    def typed(self, value: str) -> str:
        """`value` as it is typed with these digits."""
        return in_numerals(value.replace(".", "٫"), "arab") if self.digits == "arab" else value

    def count(self, n: int) -> str:
        """A whole number with its thousands separated."""
        return in_numerals(format_decimal(n, locale=self.lang, numbering_system=self.digits), self.digits)

    def text(self, page: str, key: str, n: int | None = None, **holes: str) -> str:
        """The text of `key`, in the plural form for `n`, with its placeholders filled."""
        phrase = self.numerals(pick(TRANSLATIONS[page][self.lang][key], self.lang, n))
        if n is not None:
            holes["n"] = self.count(n)
        return phrase.format(**holes)


def pick(phrase: Phrase, lang: Lang, n: int | None) -> str:
    """One sentence of a phrase: `zero` is used for 0 also in languages without that plural category."""
    if isinstance(phrase, str):
        return phrase
    if n == 0 and "zero" in phrase:
        return phrase["zero"]
    return phrase.get(Locale(lang).plural_form(n or 0), phrase["other"])


def choose_voice(query: Mapping[str, str], accept_language: str, title: object) -> Voice:
    """The language of the query, else the browser's, else one that the drive's title has, else English."""
    digits: Numerals = "arab" if query.get("digits") == "arab" else "latn"
    asked = [query.get("lang", "")[:2].lower(), *_by_preference(accept_language)]
    if isinstance(title, Mapping):
        asked += [str(tag).partition("-")[0] for tag in title]
    for lang in asked:
        if lang == "ar":
            return Voice("ar", digits)
        if lang == "en":
            return Voice("en", digits)
    return Voice("en", digits)


def _by_preference(accept_language: str) -> list[str]:
    """The primary language tags of an `Accept-Language` header, the preferred ones first (RFC 9110, 12.5.4).

    Parsed here because no dependency does: Starlette passes the header on as text, and Babel's
    `negotiate_locale` takes a list that is parsed and sorted already.
    """
    preferences: list[tuple[float, str]] = []
    for part in accept_language[:200].split(","):
        preference = _ASKED.fullmatch(part)
        if preference is not None:
            preferences.append((_weight(preference[2]), preference[1].lower()))
    return [lang for _, lang in sorted(preferences, key=lambda preference: -preference[0])]


def _weight(text: str | None) -> float:
    try:
        return float(text) if text else 1.0
    except ValueError:
        return 0.0


def localised(text: object, lang: str) -> str:
    """A string, or from a mapping of languages that of `lang`, else of English, else any, else nothing."""
    if isinstance(text, str):
        return text
    if not isinstance(text, Mapping):
        return ""
    texts = {str(tag): found for tag, found in text.items() if isinstance(found, str) and found}
    for wanted in (lang, "en", ""):
        # "ar" also matches "ar-EG"; an empty preference matches the first language.
        for tag, found in texts.items():
            if not wanted or tag.partition("-")[0] == wanted:
                return found
    return ""
