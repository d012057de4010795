"""Which language a page speaks, and how it writes numbers and money there.

Arabic is written with Latin digits unless `digits=arab` is asked for: drive totals are quoted, compared
with the payment page and read by viewers from every country, and both kinds are at home in Arabic.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from babel import Locale
from babel.numbers import format_decimal, get_currency_symbol, parse_pattern

from gateway.pages.words import WORDS, Phrase

Lang = Literal["en", "ar"]
Digits = Literal["latn", "arab"]
_ASKED: Final = re.compile(r"\s*([A-Za-z]{2})[A-Za-z-]*\s*(?:;\s*q=([0-9.]+))?\s*")

_ARABIC_INDIC: Final = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
# CLDR's currencySpacing ("KWD 5.000"), which Babel leaves out.
_CODE_AGAINST_DIGIT: Final = re.compile(r"([A-Za-z])(?=[0-9])")


@dataclass(frozen=True)
class Voice:
    """A language and its digits."""

    lang: Lang
    digits: Digits

    @property
    def direction(self) -> str:
        return "rtl" if self.lang == "ar" else "ltr"

    @property
    def other(self) -> Lang:
        return "en" if self.lang == "ar" else "ar"

    def money(self, value: str, currency: str) -> str:
        """`value` is a decimal string with exactly the currency's digits: those digits are shown."""
        amount = Decimal(value)
        decimals = len(value.partition(".")[2])
        pattern = parse_pattern(Locale(self.lang).currency_formats["standard"].pattern)
        # CLDR rounds some currencies to fewer digits than ISO 4217 gives them (IQD, LBP, …).
        pattern.frac_prec = (decimals, decimals) if amount % 1 else (0, 0)
        text = pattern.apply(
            amount, Locale(self.lang), currency=currency, currency_digits=False, numbering_system=self.digits
        )
        text = _CODE_AGAINST_DIGIT.sub("\\1\u00a0", text)
        sign = get_currency_symbol(currency, self.lang)
        return self._in_digits(text.replace(sign, _readable_sign(currency, sign)))

    def count(self, n: int) -> str:
        """A whole number with its thousands separated."""
        return self._in_digits(format_decimal(n, locale=self.lang, numbering_system=self.digits))

    def _in_digits(self, text: str) -> str:
        # Babel takes the separators of a numbering system, but leaves the digits Latin.
        return text.translate(_ARABIC_INDIC) if self.digits == "arab" else text

    def say(self, page: str, key: str, n: int | None = None, **holes: str) -> str:
        """The words for `key`, in the plural form of `n`, with their holes filled."""
        phrase = pick(WORDS[page][self.lang][key], self.lang, n)
        if n is not None:
            holes["n"] = self.count(n)
        return phrase.format(**holes)


def _readable_sign(currency: str, sign: str) -> str:
    """As `readableSign` in money.js: Arabic's "US$" is "$"; other Latin signs are isolated, or turn round."""
    if currency == "USD":
        return "$"
    return f"\u2066{sign}\u2069" if any("A" <= letter.upper() <= "Z" for letter in sign) else sign


def pick(phrase: Phrase, lang: Lang, n: int | None) -> str:
    """One sentence of a phrase: `zero` is also taken for 0 where a language has no such category."""
    if isinstance(phrase, str):
        return phrase
    if n == 0 and "zero" in phrase:
        return phrase["zero"]
    return phrase.get(Locale(lang).plural_form(n or 0), phrase["other"])


def choose_voice(query: Mapping[str, str], accept_language: str, title: object) -> Voice:
    """The language of the address, else the browser's, else one that the drive's title has, else English."""
    digits: Digits = "arab" if query.get("digits") == "arab" else "latn"
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
    wishes: list[tuple[float, str]] = []
    for part in accept_language[:200].split(","):
        wish = _ASKED.fullmatch(part)
        if wish is not None:
            wishes.append((_weight(wish[2]), wish[1].lower()))
    return [lang for _, lang in sorted(wishes, key=lambda wish: -wish[0])]


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
        # "ar" is also found under "ar-EG"; an empty wish takes the first there is.
        for tag, found in texts.items():
            if not wanted or tag.partition("-")[0] == wanted:
                return found
    return ""
