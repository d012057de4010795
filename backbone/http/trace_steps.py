"""Steps of the story of one gift, as each service tells its own (`ataa trace`)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from backbone.clock import rfc3339
from backbone.http.fields import Body, Text
from backbone.money import decimal_string


class GiftRef(Body):
    """A gift: its pledge, its drive and its payments, as far as the caller knows them."""

    pledge: Text
    drive: Text = ""
    payments: Annotated[list[Text], Field(max_length=1_000)] = Field(default_factory=list)


class Step(BaseModel):
    """Something that was done, in plain words, without donors' texts; `at` is None where it is not stored."""

    at: str | None
    text: str


def step(at: datetime | None, text: str) -> Step:
    """A step at a moment."""
    return Step(at=None if at is None else rfc3339(at), text=text)


def money(minor_units: int, currency: str | None) -> str:
    """`25.00 USD`, for a step's text."""
    return f"{decimal_string(minor_units, currency)} {currency}" if currency else f"{minor_units}"


class Story(BaseModel):
    """A service's part of the story; `known` is False where it has nothing about the gift."""

    known: bool
    drive: str | None = None
    payments: list[str] = []
    steps: list[Step] = []
