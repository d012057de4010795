"""Fields of request bodies: strict models, text without NUL or lone surrogates, timestamps, money.

Unknown fields are refused; a misspelt `creater` would otherwise silently credit no creator.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType

from backbone.amount_schemas import CHARGED, CURRENCY, POSITIVE, REFUNDED, JsonSchema
from backbone.http.problems import Problem, ProblemValueError
from backbone.ids import ULID_PATTERN, Kind
from backbone.money import Money, MoneyError, TooLarge, parse


def _check_storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be well-formed Unicode, without lone surrogates") from None
    return text


WITHOUT_NUL: Final = "^[^\\x00]*$"
"""The pattern of texts that can be stored. JSON Schema cannot name lone surrogates; UTF-8 has none."""


class _WithoutNul:
    """Adds the pattern, unless the schema of a narrower text takes its place."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"pattern": WITHOUT_NUL, **handler(core_schema)}


Text = Annotated[str, AfterValidator(_check_storable), _WithoutNul()]
"""Text of a client: it can be stored and encoded."""


def text_schema(pattern: str, **keywords: Any) -> WithJsonSchema:
    """The JSON Schema of a text of this form; `pattern` is matched as a whole."""
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$", **keywords})


_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)


def _check_rfc3339(value: object) -> object:
    if not isinstance(value, str) or _RFC3339.fullmatch(value) is None:
        raise ValueError("must be a timestamp such as 2026-01-31T18:00:00Z")
    return value


def _to_utc(timestamp: datetime) -> datetime:
    try:
        return timestamp.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999 in UTC") from None


Timestamp = Annotated[AwareDatetime, BeforeValidator(_check_rfc3339), AfterValidator(_to_utc)]
"""An RFC 3339 timestamp, in UTC. A bare number is refused: it could be seconds or milliseconds."""


class AmountTooLarge(Problem):
    status, slug, title = 422, "amount-too-large", "The amount is too large"


class AmountTooLargeError(ProblemValueError):
    """The problem as a validation error."""

    kind = AmountTooLarge


class AmountTooSmall(Problem):
    status, slug, title = 422, "amount-too-small", "The amount is too small"


class AmountTooSmallError(ProblemValueError):
    """The problem as a validation error."""

    kind = AmountTooSmall


class Body(BaseModel):
    """A JSON object of a client; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)


REFERENCE: Final = "[a-z0-9_-]{1,64}"
"""The form of an id or slug of a drive or creator."""

Currency = TypeAliasType("Currency", Annotated[Text, WithJsonSchema(CURRENCY)])
"""An ISO 4217 code. Which of them are taken is checked where the drive is known."""


def _amount_config(limits: JsonSchema) -> ConfigDict:
    example: Any = {"currency": "USD", "value": "25.00"}
    return ConfigDict(json_schema_extra={**limits, "examples": [example]})


def with_examples(*examples: dict[str, Any]) -> ConfigDict:
    """A model's configuration with examples for its schema."""
    shown: Any = list(examples)
    return ConfigDict(json_schema_extra={"examples": shown})


class MoneyBody(Body):
    """`{"currency": "USD", "value": "25.00"}`: more than 0, in exactly the currency's digits."""

    model_config = _amount_config(POSITIVE)

    currency: Currency
    value: Annotated[str, AfterValidator(_check_storable)]

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


class ChargedMoney(MoneyBody):
    """An amount that the processor charges at once: between its currency's minimum and cap.

    Only the schema says so: the limits are checked where the drive's currency is known.
    """

    model_config = _amount_config(CHARGED)


class RefundedMoney(MoneyBody):
    """An amount to give back: more than 0, in steps that the processor takes."""

    model_config = _amount_config(REFUNDED)


class MoneyView(BaseModel):
    """An amount: a decimal string with exactly the digits that ISO 4217 gives the currency."""

    model_config = with_examples({"currency": "USD", "value": "25.00"})

    currency: Annotated[str, text_schema("[A-Z]{3}")]
    value: Annotated[str, text_schema(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")]


TimestampView = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A moment in an answer: RFC 3339, in UTC, with a `Z`."""


def id_schema(kind: Kind) -> WithJsonSchema:
    """The JSON Schema of identifiers of this kind in an answer."""
    return text_schema(f"{kind}_{ULID_PATTERN}", examples=[f"{kind}_01frtz5n00000000000000000a"])


DriveIdView = Annotated[str, id_schema("drv")]
CreatorIdView = Annotated[str, id_schema("crt")]
PledgeIdView = Annotated[str, id_schema("plg")]
