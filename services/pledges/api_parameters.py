"""Parameters of the public routes, each with its form and its description."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from backbone import ids
from backbone.contracts.pledges import PledgeStatus
from backbone.http.fields import REFERENCE, Text, id_schema, text_schema
from backbone.http.problems import NotFound


def drive_ref(drive: str) -> str:
    """Check the form of a drive's id or slug; raises NotFound. (A NUL would reach the database.)"""
    if re.fullmatch(REFERENCE, drive) is None:
        raise NotFound("No such drive.")
    return drive


def _pledge_id(pledge: str) -> str:
    if not ids.is_id(pledge, "plg"):
        raise NotFound("No such pledge.")
    return pledge


DriveRef = Annotated[
    str,
    Path(description="The drive's id or slug, in lower case."),
    AfterValidator(drive_ref),
    text_schema(REFERENCE, examples=["winter"]),
]
PledgeRef = Annotated[str, Path(description="The pledge's id."), AfterValidator(_pledge_id), id_schema("plg")]
DriveFilter = Annotated[
    Annotated[str, AfterValidator(drive_ref), text_schema(REFERENCE)] | SkipJsonSchema[None],
    Query(description="The drive's id or slug."),
]
ReferenceFilter = Annotated[
    Annotated[Text, StringConstraints(max_length=255)] | SkipJsonSchema[None],
    Query(description="What the partner called it."),
]
StatusFilter = Annotated[PledgeStatus | SkipJsonSchema[None], Query(description="Those in this status.")]
After = Annotated[
    Annotated[str, StringConstraints(pattern="^[a-z0-9_]{1,40}$")] | SkipJsonSchema[None],
    Query(description="`next` of the page before."),
]
Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
