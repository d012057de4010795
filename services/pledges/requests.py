"""Request bodies of the public API: drives, creators and pledges."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.functional_validators import PlainValidator
from pydantic.json_schema import SkipJsonSchema

from backbone import ids
from backbone.addresses import EmailAddress, WebAddress
from backbone.http.fields import (
    AmountTooLargeError,
    AmountTooSmallError,
    Body,
    ChargedMoney,
    Currency,
    MoneyBody,
    Text,
    Timestamp,
    id_schema,
    text_schema,
    with_examples,
)
from backbone.http.problems import MalformedJson, from_validation
from backbone.money import Money
from backbone.stripe_amounts import SUPPORTED_CURRENCIES
from services.pledges.domain import (
    AmountTooLarge,
    AmountTooSmall,
    DomainError,
    check_chargeable,
)
from services.pledges.moderation.filters import Mode as ModerationMode

_SLUG: Final = "[a-z0-9-]{1,64}"
_LANGUAGE: Final = "[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}"
_PARTNER: Final = "^[a-z0-9][a-z0-9_-]{0,62}$"
_VISIBLE: Final = r"[^\s\x00\x1c-\x1f\x85\ufeff]"
"""What makes a text not blank: no white space, whether of Python or of ECMA 262."""
_NOT_BLANK: Final = rf"^[^\x00]*{_VISIBLE}[^\x00]*$"
_MOST_LANGUAGES: Final = 20
_WHOLE_BPS: Final = 10_000


def _slug(text: str) -> str:
    if re.fullmatch(_SLUG, text) is None:
        raise ValueError("must be 1 to 64 of a-z, 0-9 and -")
    return text


def _locale(text: str) -> str:
    if re.fullmatch(_LANGUAGE, text) is None:
        raise ValueError("must be a language tag such as ar or en-GB")
    return text


def _pledge_id(text: str) -> str:
    if not ids.is_id(text, "plg"):
        raise ValueError("must be the id of a pledge")
    return text


def _localized_text(longest: int) -> PlainValidator:
    """One text, or one per language; none empty or longer than `longest`."""

    def parse(value: object) -> str | dict[str, str]:
        if isinstance(value, str):
            return _check_text(value, longest)
        if not isinstance(value, dict) or not 1 <= len(value) <= _MOST_LANGUAGES:
            raise ValueError('must be a text, or an object of texts by language such as {"en": "…"}')
        for language, text in value.items():
            if not isinstance(language, str) or re.fullmatch(_LANGUAGE, language) is None:
                raise ValueError("must be keyed by language tags such as ar or en-GB")
            if not isinstance(text, str):
                raise ValueError("must hold texts")
            _check_text(text, longest)
        return value

    return PlainValidator(parse, json_schema_input_type=str | dict[str, str])


def _texts_schema(longest: int, example: str) -> WithJsonSchema:
    """The JSON Schema of what `_localized_text(longest)` takes."""
    one = {"type": "string", "pattern": _NOT_BLANK, "minLength": 1, "maxLength": longest}
    by_language = {
        "type": "object",
        "propertyNames": {"pattern": f"^{_LANGUAGE}$"},
        "additionalProperties": one,
        "minProperties": 1,
        "maxProperties": _MOST_LANGUAGES,
    }
    return WithJsonSchema({"anyOf": [one, by_language], "examples": [{"en": example}]})


def _check_text(text: str, longest: int) -> str:
    if re.search(_VISIBLE, text) is None:
        raise ValueError("must not be empty")
    if len(text) > longest:
        raise ValueError(f"must have at most {longest} characters")
    if "\x00" in text:
        raise ValueError("must not contain the character NUL")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must be well-formed Unicode, without lone surrogates")
    return text


Slug = Annotated[Text, AfterValidator(_slug), text_schema(_SLUG, examples=["winter"])]
Locale = Annotated[Text, AfterValidator(_locale), text_schema(_LANGUAGE, examples=["ar"])]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=100)]
Title = Annotated[
    str | dict[str, str], _localized_text(200), _texts_schema(200, "Let's make their winter warmer")
]
LongText = Annotated[
    str | dict[str, str],
    _localized_text(5_000),
    _texts_schema(5_000, "Heaters and blankets for 100,000 families."),
]
Partner = Annotated[
    Text, StringConstraints(pattern=_PARTNER), WithJsonSchema({"type": "string", "pattern": _PARTNER})
]
"""A partner's name, as `POST /v1/keys` takes it."""


Purpose = Literal["zakat", "sadaqah"]


def _check_unique(partners: list[str]) -> list[str]:
    if len(set(partners)) != len(partners):
        raise ValueError("must name each partner once")
    return partners


Unsent = SkipJsonSchema[None]
"""The default of a field that may be left out and not be null."""

Partners = Annotated[
    list[Partner],
    Field(max_length=100, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_check_unique),
]


def _check_currencies(codes: list[str]) -> list[str]:
    if len(set(codes)) != len(codes):
        raise ValueError("must name each currency once")
    if not SUPPORTED_CURRENCIES.issuperset(codes):
        raise ValueError("must be currencies that the processor takes, in upper case such as KWD")
    return codes


Currencies = Annotated[
    list[Currency],
    Field(max_length=50, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_check_currencies),
]
"""Currencies that a drive takes besides its own."""


class Beneficiary(Body):
    """Who receives, and how many ten-thousandths of it."""

    name: Annotated[Text, StringConstraints(min_length=1, max_length=200)]
    share_bps: Annotated[StrictInt, Field(ge=1, le=_WHOLE_BPS)]


class Impact(Body):
    """What an amount pays for."""

    label: Title
    cost: MoneyBody


class MilestoneBody(Body):
    """An amount to celebrate."""

    title: Title
    amount: MoneyBody


class ModerationBody(Body):
    """How donors' names and messages are moderated; what is not sent has its default.

    `off` holds nothing, `filtered` holds what does not pass the filters, `all` holds every name and message,
    except those that pass the filters of gifts below `auto_approve_below`.
    """

    mode: ModerationMode = "filtered"
    auto_approve_below: MoneyBody | None = None
    blocked_words: Annotated[
        list[Annotated[Text, StringConstraints(min_length=1, max_length=50)]],
        Field(default_factory=list, max_length=200),
    ]


UNCHANGED_MENU: Final = {"menu": "kept"}
"""Validation context in which the menu is not checked: it is unchanged since an earlier version."""


def _check_menu_amount(money: Money) -> None:
    """Raises ValueError for an amount that cannot be pledged, with a problem type where it has one."""
    try:
        check_chargeable(money)
    except DomainError as error:
        kind = _AMOUNT_ERRORS.get(type(error), ValueError)
        raise kind(f"the menu offers {money}: {error}") from None


_AMOUNT_ERRORS: Final = {AmountTooSmall: AmountTooSmallError, AmountTooLarge: AmountTooLargeError}


class DriveRequest(Body):
    """A drive to be made."""

    model_config = with_examples(
        {
            "slug": "winter",
            "title": {"en": "Let's make their winter warmer", "ar": "لنجعل شتاءهم أدفأ"},
            "currency": "USD",
            "goal": {"currency": "USD", "value": "10000000.00"},
            "ends_at": "2030-01-31T18:00:00Z",
            "milestones": [{"title": "Half way", "amount": {"currency": "USD", "value": "5000000.00"}}],
            "menu": [{"currency": "USD", "value": "25.00"}],
        }
    )

    slug: Slug
    title: Title
    currency: Currency
    currencies: Annotated[
        Currencies,
        Field(
            default_factory=list,
            description="Currencies in which one may pledge besides the drive's own. Sums are in its own.",
        ),
    ]
    goal: MoneyBody
    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None
    description: LongText | None = None
    beneficiaries: Annotated[list[Beneficiary], Field(default_factory=list, max_length=50)]
    permit: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = None
    zakat_eligible: StrictBool = False
    impact: Annotated[list[Impact], Field(default_factory=list, max_length=20)]
    milestones: Annotated[list[MilestoneBody], Field(default_factory=list, max_length=100)]
    menu: Annotated[list[ChargedMoney], Field(default_factory=list, max_length=20)]
    partners: Partners | None = Field(
        None, description="Partners who may pledge besides the drive's own; without it any partner may."
    )
    moderation: Annotated[ModerationBody, Field(default_factory=lambda: ModerationBody.model_validate({}))]
    test: StrictBool = False

    @model_validator(mode="after")
    def _check_consistent(self, info: ValidationInfo) -> DriveRequest:
        if self.currency not in SUPPORTED_CURRENCIES:
            raise ValueError("currency must be one the processor takes, in upper case such as USD")
        if self.currency in self.currencies:
            raise ValueError("currencies must not contain the drive's own currency")
        if any(money.currency != self.currency for money in self._amounts()):
            raise ValueError("every amount must be in the drive's currency")
        if self.beneficiaries and sum(one.share_bps for one in self.beneficiaries) != _WHOLE_BPS:
            raise ValueError(f"the beneficiaries' share_bps must add up to {_WHOLE_BPS}")
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            raise ValueError("starts_at must be before ends_at")
        if info.context is not UNCHANGED_MENU:
            for money in map(MoneyBody.money, self.menu):
                _check_menu_amount(money)
        return self

    def _amounts(self) -> list[Money]:
        sent = [self.goal, *self.menu, *(one.cost for one in self.impact)]
        sent += [one.amount for one in self.milestones]
        threshold = self.moderation.auto_approve_below
        return [body.money() for body in [*sent, *([threshold] if threshold else [])]]


class DriveChange(Body):
    """What is to change of a drive: the fields that are sent, each taking the place of the old one.

    `DriveRequest` validates them for the drive as it is after the change: a null is refused there for a
    field that a drive cannot be without.
    """

    model_config = with_examples(
        {"description": {"en": "Heaters and blankets."}, "goal": {"currency": "USD", "value": "12000000.00"}}
    )

    slug: Slug | Unsent = None
    title: Title | Unsent = None
    currency: Currency | Unsent = None
    currencies: Currencies | Unsent = None
    goal: MoneyBody | Unsent = None
    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None
    description: LongText | None = None
    beneficiaries: Annotated[list[Beneficiary], Field(max_length=50)] | Unsent = None
    permit: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = None
    zakat_eligible: StrictBool | Unsent = None
    impact: Annotated[list[Impact], Field(max_length=20)] | Unsent = None
    milestones: Annotated[list[MilestoneBody], Field(max_length=100)] | Unsent = None
    menu: Annotated[list[ChargedMoney], Field(max_length=20)] | Unsent = None
    partners: Partners | None = None
    moderation: ModerationBody | Unsent = None
    test: StrictBool | Unsent = None


def changed_request(drive: Mapping[str, Any], change: DriveChange) -> DriveRequest:
    """The request that would create `drive` (a `DriveView`) with `change` applied.

    Raises the 422 that names the invalid fields.
    """
    current = {name: drive[name] for name in DriveRequest.model_fields}
    changed = current | change.model_dump(mode="json", exclude_unset=True)
    kept = UNCHANGED_MENU if changed["menu"] == current["menu"] else None
    try:
        return DriveRequest.model_validate(changed, context=kept)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False)) from None


class CreatorRequest(Body):
    """A creator to be added to a drive."""

    model_config = with_examples(
        {"slug": "aboflah", "name": "AboFlah", "channel_url": "https://example.org/aboflah"}
    )

    slug: Slug
    name: Name
    channel_url: WebAddress | None = None
    team: Name | None = None
    goal: MoneyBody | None = None


class CreatorSearch(Body):
    """Which creators of a drive the donate form looks for."""

    drive: Text
    text: Annotated[Text, StringConstraints(max_length=100)]


class FunnelPeriod(Body):
    """A drive, by id, and the period whose pledges the gateway counts."""

    drive: Text
    since: Timestamp
    until: Timestamp


class DonorBody(Body):
    """The donor, as far as the request describes them."""

    name: Annotated[Text, StringConstraints(max_length=100)] | None = None
    email: EmailAddress | None = None
    anonymous: StrictBool = False
    locale: Locale | None = None


class SourceBody(Body):
    """Where the donor came from."""

    platform: Annotated[Text, StringConstraints(min_length=1, max_length=64)] | None = None
    campaign: Annotated[Text, StringConstraints(min_length=1, max_length=128)] | None = None
    referrer: Annotated[Text, StringConstraints(max_length=2048)] | None = None


class PledgeRequest(Body):
    """A pledge to be made."""

    model_config = with_examples(
        {
            "amount": {"currency": "USD", "value": "25.00"},
            "creator": "aboflah",
            "donor": {"name": "Layla", "email": "layla@example.org", "locale": "ar"},
            "message": "For a warm night",
            "return_url": "https://example.org/thanks",
        }
    )

    amount: ChargedMoney
    creator: (
        Annotated[
            Text,
            StringConstraints(min_length=1, max_length=64),
            Field(description="Who is credited: an id or slug, in lower case."),
        ]
        | None
    ) = None
    donor: Annotated[DonorBody, BeforeValidator(lambda sent: {} if sent is None else sent)] = DonorBody()
    message: Annotated[Text, StringConstraints(max_length=280)] | None = None
    source: SourceBody | None = None
    reference: Annotated[Text, StringConstraints(min_length=1, max_length=255)] | None = None
    return_url: WebAddress | None = None
    checkout_mode: Literal["hosted", "embedded"] = "hosted"
    purpose: Purpose | None = Field(
        None, description="What the donor gives it as; `zakat` only where the drive is `zakat_eligible`."
    )


def _whole(value: object) -> object:
    """JSON's 2.0 is the integer 2 (JSON Schema, `type`: integer)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class DecisionRequest(Body):
    """Why a moderator decides so, under which name, and the version of the message that they saw."""

    model_config = with_examples({"note": "Asked by the donor", "moderator": "Sara", "seen_version": 0})

    note: Annotated[Text, StringConstraints(min_length=1, max_length=500)] | None = None
    moderator: Annotated[Text, StringConstraints(min_length=1, max_length=40)] | None = None
    seen_version: Annotated[StrictInt, Field(ge=0, le=2**31 - 1), BeforeValidator(_whole)] | None = Field(
        None,
        description="`version` of the message as it was read: another decision since then is a conflict.",
    )


class ReplayRequest(Body):
    """Whose donation is shown again; without a pledge, each screen's last one."""

    model_config = with_examples({"pledge": "plg_01frtz5n00000000000000000c"}, {})

    pledge: Annotated[Text, AfterValidator(_pledge_id), id_schema("plg")] | None = None


Kind = TypeVar("Kind", bound=Body)


def parse(kind: type[Kind], body: bytes) -> Kind:
    """Parse `body` (JSON, UTF-8) as `kind`.

    Raises `MalformedJson`, or the 422 that names the invalid fields. The fast parser calls a
    lone surrogate a syntax error and takes NaN; JSON's grammar has it the other way round (RFC 8259,
    sections 6 and 8.2), so a body that does not fit is read again by the slow one.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        sent = parse_json(body)
        if error.errors(include_url=False)[0]["type"] != "json_invalid":
            raise from_validation(error.errors(include_url=False)) from None
    try:
        return kind.model_validate(sent)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False)) from None


def parse_json(body: bytes) -> Any:
    """The JSON that `body` (UTF-8) holds, lone surrogates included. Raises `MalformedJson`."""

    def refuse(constant: str) -> None:
        raise MalformedJson(f"{constant} is not JSON.")

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError):
        raise MalformedJson from None
