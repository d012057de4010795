"""What callers send: drives, creators and pledges to be made."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.functional_validators import PlainValidator

from backbone.http.fields import Body, MoneyBody, Text, Timestamp
from backbone.http.problems import MalformedJson, from_validation
from backbone.money import Money
from services.pledges.domain import SUPPORTED_CURRENCIES, check_chargeable

_SLUG: Final = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}", re.ASCII)
_ADDRESS: Final = re.compile(
    r"[^\s\x00-\x20\x7f@<>()\[\],;:\\\"]{1,64}@[^\W_](?:[\w-]{0,62}\.)+[^\W_][\w-]{0,61}[^\W_]"
)
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_WHOLE_BPS: Final = 10_000


def _slug(text: str) -> str:
    if _SLUG.fullmatch(text) is None:
        raise ValueError("must be 1 to 64 of a-z, 0-9 and -")
    return text


def _locale(text: str) -> str:
    if _LANGUAGE.fullmatch(text) is None:
        raise ValueError("must be a language tag such as ar or en-GB")
    return text


def _address(text: str) -> str:
    if len(text) > 254 or _ADDRESS.fullmatch(text) is None:
        raise ValueError("must be an e-mail address")
    return text


def _web_address(text: str) -> str:
    if any(letter <= " " or letter == "\x7f" for letter in text) or "\\" in text:
        raise ValueError("must be an address on the web")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be an address on the web") from None
    if not host or "@" in parts.netloc:
        raise ValueError("must be an address on the web")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise ValueError("must begin with https:// (http:// only on this machine)")
    return text


def _localized_text(longest: int) -> PlainValidator:
    """One text, or one a language; none empty or longer than `longest`."""

    def parse(value: object) -> str | dict[str, str]:
        if isinstance(value, str):
            return _check_text(value, longest)
        if not isinstance(value, dict) or not 1 <= len(value) <= 20:
            raise ValueError('must be a text, or an object of texts by language such as {"en": "…"}')
        for language, text in value.items():
            if not isinstance(language, str) or _LANGUAGE.fullmatch(language) is None:
                raise ValueError("must be keyed by language tags such as ar or en-GB")
            if not isinstance(text, str):
                raise ValueError("must hold texts")
            _check_text(text, longest)
        return value

    return PlainValidator(parse, json_schema_input_type=str | dict[str, str])


def _check_text(text: str, longest: int) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    if len(text) > longest:
        raise ValueError(f"must have at most {longest} characters")
    if "\x00" in text:
        raise ValueError("must not contain the character NUL")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must be well-formed Unicode, without lone surrogates")
    return text


Slug = Annotated[Text, AfterValidator(_slug)]
Locale = Annotated[Text, AfterValidator(_locale)]
WebAddress = Annotated[Text, StringConstraints(max_length=2048), AfterValidator(_web_address)]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=100)]
Title = Annotated[str | dict[str, str], _localized_text(200)]
LongText = Annotated[str | dict[str, str], _localized_text(5_000)]
Partner = Annotated[Text, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
"""A partner's name, as `POST /v1/keys` takes it."""


def _check_unique(partners: list[str]) -> list[str]:
    if len(set(partners)) != len(partners):
        raise ValueError("must name each partner once")
    return partners


Partners = Annotated[list[Partner], Field(max_length=100), AfterValidator(_check_unique)]


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


UNCHANGED_MENU: Final = {"menu": "kept"}
"""The context in which a menu is not checked: a drive keeps the one an earlier version took."""


def _check_menu_amount(money: Money) -> None:
    """Raises ValueError (with a problem type of its own, where it has one) for what cannot be given."""
    try:
        check_chargeable(money)
    except ValueError as error:
        raise type(error)(f"the menu offers {money}: {error}") from None


class DriveRequest(Body):
    """A drive to be made."""

    slug: Slug
    title: Title
    currency: Text
    goal: MoneyBody
    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None
    description: LongText | None = None
    beneficiaries: Annotated[list[Beneficiary], Field(default_factory=list, max_length=50)]
    permit: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = None
    zakat_eligible: StrictBool = False
    impact: Annotated[list[Impact], Field(default_factory=list, max_length=20)]
    milestones: Annotated[list[MilestoneBody], Field(default_factory=list, max_length=100)]
    menu: Annotated[list[MoneyBody], Field(default_factory=list, max_length=20)]
    partners: Partners | None = Field(
        None, description="Partners who may pledge besides the drive's own; without it any partner may."
    )
    test: StrictBool = False

    @model_validator(mode="after")
    def _check_consistent(self, info: ValidationInfo) -> DriveRequest:
        if self.currency not in SUPPORTED_CURRENCIES:
            raise ValueError("currency must be one the processor takes, in upper case such as USD")
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
        return [body.money() for body in sent + [one.amount for one in self.milestones]]


class DriveChange(Body):
    """What is to change of a drive: the fields that are sent, each taking the place of the old one.

    What they may be is `DriveRequest`'s to say, for the drive as it then is.
    """

    slug: Slug | None = None
    title: Title | None = None
    currency: Text | None = None
    goal: MoneyBody | None = None
    starts_at: Timestamp | None = None
    ends_at: Timestamp | None = None
    description: LongText | None = None
    beneficiaries: Annotated[list[Beneficiary], Field(max_length=50)] | None = None
    permit: Annotated[Text, StringConstraints(min_length=1, max_length=200)] | None = None
    zakat_eligible: StrictBool | None = None
    impact: Annotated[list[Impact], Field(max_length=20)] | None = None
    milestones: Annotated[list[MilestoneBody], Field(max_length=100)] | None = None
    menu: Annotated[list[MoneyBody], Field(max_length=20)] | None = None
    partners: Partners | None = None
    test: StrictBool | None = None


def changed_request(drive: Mapping[str, Any], change: DriveChange) -> DriveRequest:
    """The wish that would have made `drive` (as the door shows it) with `change` in it.

    Raises the 422 that says which fields do not fit.
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

    slug: Slug
    name: Name
    channel_url: WebAddress | None = None
    team: Name | None = None
    goal: MoneyBody | None = None


class CreatorSearch(Body):
    """Which creators of a drive the donate form looks for."""

    drive: Text
    text: Annotated[Text, StringConstraints(max_length=100)]


class DonorBody(Body):
    """Who gives, as far as they say."""

    name: Annotated[Text, StringConstraints(max_length=100)] | None = None
    email: Annotated[Text, AfterValidator(_address)] | None = None
    anonymous: StrictBool = False
    locale: Locale | None = None


class SourceBody(Body):
    """Where the donor came from."""

    platform: Annotated[Text, StringConstraints(min_length=1, max_length=64)] | None = None
    campaign: Annotated[Text, StringConstraints(min_length=1, max_length=128)] | None = None
    referrer: Annotated[Text, StringConstraints(max_length=2048)] | None = None


class PledgeRequest(Body):
    """A pledge to be made."""

    amount: MoneyBody
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


Kind = TypeVar("Kind", bound=Body)


def parse(kind: type[Kind], body: bytes) -> Kind:
    """The wish that `body` (JSON, UTF-8) holds.

    Raises `MalformedJson`, or the 422 that says which fields do not fit. The fast parser calls a
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
