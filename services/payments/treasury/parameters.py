"""Parameters that the routes about payments and ledgers share."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header, Path, Query
from pydantic import AfterValidator, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone import ids
from backbone.http.fields import REFERENCE, id_schema, text_schema
from backbone.http.problems import NotFound


def matches_reference(text: str) -> bool:
    """Whether this is the form of an id or slug of a drive or creator."""
    return re.fullmatch(REFERENCE, text, re.ASCII) is not None


def _drive_ref(drive: str) -> str:
    """Check the form of a drive's id or slug; raises NotFound. (A NUL would reach the database.)"""
    if not matches_reference(drive):
        raise NotFound("No such drive.")
    return drive


def _payment_id(payment: str) -> str:
    if not ids.is_id(payment, "pay"):
        raise NotFound("No such payment.")
    return payment


DriveRef = Annotated[
    str,
    Path(description="The drive's id or slug, in lower case."),
    AfterValidator(_drive_ref),
    text_schema(REFERENCE, examples=["winter"]),
]
DriveFilter = Annotated[
    Annotated[str, AfterValidator(_drive_ref), text_schema(REFERENCE)] | SkipJsonSchema[None],
    Query(description="The drive's id or slug."),
]
PaymentRef = Annotated[
    str, Path(description="The payment's id."), AfterValidator(_payment_id), id_schema("pay")
]
PledgeFilter = Annotated[
    Annotated[str, StringConstraints(pattern=f"^plg_{ids.ULID_PATTERN}$")] | SkipJsonSchema[None],
    Query(description="Those of this pledge."),
]
After = Annotated[
    Annotated[str, StringConstraints(pattern="^[0-9]{1,18}$")] | SkipJsonSchema[None],
    Query(description="`next` of the page before."),
]
Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
Accept = Annotated[str | None, Header(include_in_schema=False)]
"""`text/csv` asks for a table (backbone/http/csv_reply.py)."""
