"""Amounts as readers of the payment page write them; only the page imports this module, and with it Babel."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from babel import Locale
from babel.numbers import get_currency_symbol, parse_pattern


def amount_text(value: str, currency: str, language: str) -> str:
    """Format `value`, a decimal string, for a reader of `language`: `"25.00", "USD", "en"` is `$25.00`.

    All decimals of `value` are shown; CLDR's pattern alone would round several currencies to the digits of
    their cash. A currency sign in Latin letters is isolated (U+2066, U+2069) for right-to-left text.
    """
    locale, decimals = Locale(language), len(value.partition(".")[2])
    pattern = parse_pattern(locale.currency_formats["standard"].pattern)
    pattern.frac_prec = (decimals, decimals)
    text: str = pattern.apply(Decimal(value), locale, currency=currency, currency_digits=False)
    sign = get_currency_symbol(currency, language)
    if unicodedata.category(sign[-1])[0] not in "SZ":  # CLDR's currencySpacing, which Babel does not apply
        text = re.sub(f"{re.escape(sign)}(?=[0-9])", f"{sign}\u00a0", text)
    return text.replace(sign, _isolated(currency, sign))


def _isolated(currency: str, sign: str) -> str:
    """The sign of a currency; Arabic's "US$" is shown as "$"."""
    if currency == "USD":
        return "$"
    return f"\u2066{sign}\u2069" if re.search("[A-Za-z]", sign) else sign
