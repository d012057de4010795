"""Parameters, bodies and views that the routes of everything that is approved have in common."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone import ids
from backbone.http.fields import (
    REFERENCE,
    AmountTooLarge,
    Body,
    MoneyBody,
    Text,
    TimestampView,
    text_schema,
    with_examples,
)
from backbone.http.problems import Invalid, NotFound
from backbone.money import Money
from services.payments.approvals.states import Status

MAX_UNITS: Final = 10**13
"""The largest amount in minor units: 900,000 of them add up within a 64-bit integer."""
EARLIEST_YEAR: Final = 2000
FUTURE: Final = timedelta(minutes=5)
"""How far a client's clock may be ahead of ours."""


class CurrencyNotAccepted(Invalid):
    slug, title = "currency-not-accepted", "The drive does not take this currency"


def drive_ref(drive: str) -> str:
    """Check the form of a drive's id or slug; raises NotFound. (A NUL would reach the database.)"""
    if re.fullmatch(REFERENCE, drive) is None:
        raise NotFound("No such drive.")
    return drive


def checked_id(kind: ids.Kind) -> Callable[[str], str]:
    """A validator that raises NotFound for what has not the form of an id of this kind."""

    def check(text: str) -> str:
        if not ids.is_id(text, kind):
            raise NotFound("No such id.")
        return text

    return check


DriveRef = Annotated[
    str,
    Path(description="The drive's id or slug, in lower case."),
    AfterValidator(drive_ref),
    text_schema(REFERENCE, examples=["winter"]),
]
DriveFilter = Annotated[
    Annotated[str, AfterValidator(drive_ref), text_schema(REFERENCE)] | SkipJsonSchema[None],
    Query(description="The drive's id or slug; without it, all drives of the caller."),
]
StatusFilter = Annotated[Status | SkipJsonSchema[None], Query(description="Those in this status.")]
After = Annotated[
    Annotated[str, StringConstraints(pattern="^[a-z0-9_]{1,40}$")] | SkipJsonSchema[None],
    Query(description="`next` of the page before."),
]
Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
Evidence = Annotated[Text, StringConstraints(min_length=1, max_length=2_000)]
CreatorRef = Annotated[Text, StringConstraints(pattern=f"^{REFERENCE}$")]


class DecisionNote(Body):
    """Why it was decided so."""

    model_config = with_examples({"reason": "The transfer is on the bank statement of 3 March."})

    reason: Annotated[Text, StringConstraints(min_length=1, max_length=500)] | None = None


class ReversalNote(Body):
    """Why it is taken back, and in which status it was seen."""

    model_config = with_examples({"reason": "The transfer came back.", "seen": "approved"})

    reason: Annotated[Text, StringConstraints(min_length=1, max_length=500)] | None = None
    seen: Annotated[
        Literal[Status.APPROVED, Status.REVERSAL_REQUESTED] | None,
        Field(
            description="The status in which you saw it. If it has another one by now, the answer is 409 "
            "`approval-state`, so that a request never confirms another key's. A request that this key made "
            "before is answered again."
        ),
    ] = None


class Rejection(Body):
    """Why it is rejected."""

    model_config = with_examples({"reason": "The cheque was returned."})

    reason: Annotated[Text, StringConstraints(min_length=1, max_length=500)]


PUBLIC: Final = {"Cache-Control": "public, max-age=1, s-maxage=1"}
"""The headers of a reply that needs no key."""
NO_NOTE: Final = DecisionNote()
NO_REVERSAL_NOTE: Final = ReversalNote()


class StepView(BaseModel):
    """What a key did: record, approve, reject, request_reversal or reverse."""

    action: str
    by: Annotated[str, Field(description="The id of the API key.")]
    reason: str | None
    at: TimestampView


def taken_amount(amount: MoneyBody, currency: str) -> Money:
    """The amount, if it is in the drive's currency. Raises `CurrencyNotAccepted` and `AmountTooLarge`."""
    money = amount.money()
    if money.currency != currency:
        detail = f"must be in {currency}, the drive's currency"
        raise CurrencyNotAccepted(detail, errors=[{"pointer": "/amount/currency", "detail": detail}])
    if money.minor_units > MAX_UNITS:
        detail = f"more than {Money(MAX_UNITS, currency)}"
        raise AmountTooLarge(detail, errors=[{"pointer": "/amount/value", "detail": detail}])
    return money


def past_moment(at: datetime, now: datetime, field: str) -> datetime:
    """`at`, if it is not in the future and not before 2000. Raises `Invalid`."""
    if at > now + FUTURE or at.year < EARLIEST_YEAR:
        detail = "must not be in the future" if at > now else f"must not be before {EARLIEST_YEAR}"
        raise Invalid(detail, errors=[{"pointer": f"/{field}", "detail": detail}])
    return min(at, now)
