"""Web and e-mail addresses from outside: each one regular expression, the same for the check and the schema.

The expressions hold in Python, in ECMA 262 and in Rust alike. Where a class names white space, it also
names the characters that only some of the three count as such.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, StringConstraints

from backbone.http.fields import Text, text_schema

_LOOKALIKES: Final = (
    r"\u2047-\u2049\u2100\u2101\u2105\u2106\u2a74\ufe13\ufe16\ufe55\ufe56\ufe5f\ufe6b"
    r"\uff03\uff0f\uff1a\uff1f\uff20"
)
"""Characters that the compatibility form NFKC turns into `/`, `?`, `#`, `@` or `:` (CVE-2019-9636)."""

_NAME: Final = rf"[^\s\x00-\x20\x7f\x1c-\x1f\x85\ufeff/?#@:\\\[\]{_LOOKALIKES}]+"
_HEX: Final = "[0-9A-Fa-f]{1,4}"
_IP6: Final = "|".join(
    [
        f"(?:{_HEX}:){{7}}{_HEX}",
        f"::(?:{_HEX}(?::{_HEX}){{0,6}})?",
        *(f"{_HEX}(?::{_HEX}){{{n - 1}}}::(?:{_HEX}(?::{_HEX}){{0,{6 - n}}})?" for n in range(1, 7)),
        f"{_HEX}(?::{_HEX}){{6}}::",
    ]
)
"""IPv6 addresses in hexadecimal groups (RFC 4291, 2.2), without an IPv4 address in the last two."""

_PORT: Final = "[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_LOOPBACK: Final = r"[Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt]|127\.0\.0\.1|\[::1\]"
_REST: Final = r"(?:[/?#][^\x00-\x20\x7f\\]*)?"

WEB_ADDRESS: Final = (
    rf"(?:[Hh][Tt][Tt][Pp][Ss]://(?:{_NAME}|\[(?:{_IP6})\])|[Hh][Tt][Tt][Pp]://(?:{_LOOPBACK}))"
    rf"(?::(?:{_PORT})?)?{_REST}"
)

ORIGIN: Final = (
    rf"[Hh][Tt][Tt][Pp][Ss]?://(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{{0,251}}[A-Za-z0-9])?|\[(?:{_IP6})\])"
    rf"(?::(?:{_PORT})?)?/?"
)
"""An origin (RFC 6454), the slash at its end allowed."""

_LETTER: Final = r"[^\s\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\xa0\ufeff]"
_INSIDE: Final = r"[^\s\x00-\x2c\x2e\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\xa0\ufeff]"
_LABEL: Final = rf"{_LETTER}(?:{_INSIDE}{{0,61}}{_LETTER})?"

_MAILBOX: Final = r"[^\s\x00-\x20\x7f-\x9f\ufeff@<>()\[\],;:\\\"]{1,64}"
EMAIL_ADDRESS: Final = rf"{_MAILBOX}@(?:{_LABEL}\.)+{_LETTER}{_INSIDE}{{0,61}}{_LETTER}"


def _web_address(text: str) -> str:
    if re.fullmatch(WEB_ADDRESS, text) is None:
        raise ValueError("must be a web address that begins with https:// (http:// only on this machine)")
    return text


def _email_address(text: str) -> str:
    if re.fullmatch(EMAIL_ADDRESS, text) is None:
        raise ValueError("must be an e-mail address")
    return text


WebAddress = Annotated[
    Text,
    StringConstraints(max_length=2048),
    AfterValidator(_web_address),
    text_schema(WEB_ADDRESS, maxLength=2048, examples=["https://example.org/thanks"]),
]
EmailAddress = Annotated[
    Text,
    StringConstraints(max_length=254),
    AfterValidator(_email_address),
    text_schema(EMAIL_ADDRESS, maxLength=254, examples=["donor@example.org"]),
]
