"""What request bodies are made of: strict fields, text without NUL or lone surrogates, money.

Unknown fields are refused: a misspelt `creater` would silently credit nobody.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, model_validator

from backbone.http.problems import Problem, ProblemValueError
from backbone.money import Money, MoneyError, TooLarge, parse


def _check_storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be well-formed Unicode, without lone surrogates") from None
    return text


Text = Annotated[str, AfterValidator(_check_storable)]
"""Any text from outside: storable, printable, encodable."""


_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)


def _check_rfc3339(value: object) -> object:
    if not isinstance(value, str) or _RFC3339.fullmatch(value) is None:
        raise ValueError("must be a moment such as 2026-01-31T18:00:00Z")
    return value


def _to_utc(timestamp: datetime) -> datetime:
    try:
        return timestamp.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None


Timestamp = Annotated[AwareDatetime, BeforeValidator(_check_rfc3339), AfterValidator(_to_utc)]
"""A moment as RFC 3339 writes it, in UTC; never a bare number, which could be seconds or milliseconds."""


class AmountTooLarge(Problem):
    status, slug, title = 422, "amount-too-large", "The amount is too large"


class AmountTooLargeError(ProblemValueError):
    """As a validator raises it."""

    kind = AmountTooLarge


class AmountTooSmall(Problem):
    status, slug, title = 422, "amount-too-small", "The amount is too small"


class AmountTooSmallError(ProblemValueError):
    """As a validator raises it."""

    kind = AmountTooSmall


class Body(BaseModel):
    """A JSON object from outside, with exactly the fields it may have."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


class MoneyBody(Body):
    """`{"currency": "USD", "value": "25.00"}`; more than 0."""

    currency: Text
    value: Text

    @model_validator(mode="after")
    def _positive(self) -> MoneyBody:
        try:
            if parse(self.value, self.currency) <= 0:
                raise ValueError("must be more than zero")
        except TooLarge as error:
            raise AmountTooLargeError(str(error)) from None
        except MoneyError as error:
            raise ValueError(str(error)) from None
        return self

    def money(self) -> Money:
        """The amount as integers."""
        return Money(parse(self.value, self.currency), self.currency)


class MoneyView(BaseModel):
    """`{"currency": "USD", "value": "25.00"}` as the door answers it."""

    currency: str
    value: str
