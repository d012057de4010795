"""The request body of a matching pool."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, StringConstraints, WithJsonSchema

from backbone.http.fields import REFERENCE, Body, MoneyBody, Text, Timestamp, text_schema
from services.payments.matching.ratio import ACCEPTED_PATTERN, parse_ratio

_PRINTED: Final = r"[^\x00-\x1f\x7f-\x9f]"
_VISIBLE: Final = r"[^\s\x00-\x1f\x7f-\x9f\ufeff]"
"""What makes a name not blank: no white space, whether of Python or of ECMA 262, and no control character."""
_NAME: Final = rf"{_PRINTED}*{_VISIBLE}{_PRINTED}*"
_LONGEST: Final = 100


def _check_name(text: str) -> str:
    if re.fullmatch(_NAME, text) is None:
        raise ValueError("must not be blank, and must not contain control characters")
    return text


def _check_ratio(text: str) -> str:
    parse_ratio(text)
    return text


def _check_creator(text: str) -> str:
    if re.fullmatch(REFERENCE, text) is None:
        raise ValueError("must be the id or slug of a creator")
    return text


Sponsor = Annotated[
    Text,
    StringConstraints(min_length=1, max_length=_LONGEST),
    AfterValidator(_check_name),
    WithJsonSchema({"type": "string", "pattern": f"^{_NAME}$", "minLength": 1, "maxLength": _LONGEST}),
]
Ratio = Annotated[Text, AfterValidator(_check_ratio), text_schema(ACCEPTED_PATTERN, examples=["1.00"])]
CreatorRef = Annotated[Text, AfterValidator(_check_creator), text_schema(REFERENCE)]


class PoolRequest(Body):
    """A sponsor's promise to add `ratio` of each gift, up to `cap` in all.

    Gifts captured from `starts_at` (now, if it is left out) until before `ends_at` are matched.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"sponsor": "Acme", "cap": {"currency": "USD", "value": "5000.00"}, "ratio": "1.00"}]
        }
    )

    sponsor: Sponsor
    cap: MoneyBody
    ratio: Ratio
    per_gift_cap: MoneyBody | None = None
    creator: CreatorRef | None = None
    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None
