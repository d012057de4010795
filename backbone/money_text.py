"""Amounts as people of a language write them, with ISO 4217's digits.

CLDR, and with it Babel, shows several currencies with fewer digits than they have (AFN, IQD, LBP, YER, … and
others in other versions): its digits are those of cash. On a receipt or a page they would round money.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Final, Literal

from babel import Locale
from babel.numbers import get_currency_symbol, parse_pattern

Numerals = Literal["latn", "arab"]

_ARABIC_INDIC: Final = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")


def money_text(
    value: str, currency: str, lang: str, numerals: Numerals = "latn", *, short: bool = False
) -> str:
    """`value`, a decimal string with exactly the currency's digits, as a reader of `lang` expects it.

    All its digits are shown, but for decimals that are all zero where it may be `short`. Signs in Latin
    letters are isolated (U+2066, U+2069), or a right-to-left line would reorder them.
    """
    amount = Decimal(value)
    decimals = 0 if short and not amount % 1 else len(value.partition(".")[2])
    pattern = parse_pattern(Locale(lang).currency_formats["standard"].pattern)
    pattern.frac_prec = (decimals, decimals)
    text = pattern.apply(
        amount, Locale(lang), currency=currency, currency_digits=False, numbering_system=numerals
    )
    sign = get_currency_symbol(currency, lang)
    if unicodedata.category(sign[-1])[0] not in "SZ":  # CLDR's currencySpacing, which Babel leaves out
        text = re.sub(f"{re.escape(sign)}(?=[0-9])", f"{sign}\u00a0", text)
    return in_numerals(text.replace(sign, _readable_sign(currency, sign)), numerals)


def in_numerals(text: str, numerals: Numerals) -> str:
    """Babel takes the separators of a numbering system, but leaves the digits Latin."""
    return text.translate(_ARABIC_INDIC) if numerals == "arab" else text


def _readable_sign(currency: str, sign: str) -> str:
    """As `readableSign` in money.js: Arabic's "US$" is "$"; other Latin signs are isolated."""
    if currency == "USD":
        return "$"
    return f"\u2066{sign}\u2069" if any("A" <= letter.upper() <= "Z" for letter in sign) else sign
