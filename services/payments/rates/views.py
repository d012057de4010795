"""Exchange rates as the API takes and shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool, StringConstraints
from sqlalchemy import Row

from backbone.clock import rfc3339
from backbone.exchange_rates import RATE
from backbone.http.fields import Body, Text, Timestamp, TimestampView, text_schema, with_examples
from services.payments.rates.domain import Refusal

Rate = Annotated[Text, StringConstraints(pattern=f"^{RATE}$"), text_schema(RATE, examples=["3.2581"])]


class RateRequest(Body):
    """A rate, and the moment for which it holds. `confirm` takes one that differs much from the newest."""

    model_config = Body.model_config | with_examples({"rate": "3.2581", "as_of": "2030-01-07T18:00:00Z"})

    rate: Rate
    as_of: Timestamp
    confirm: StrictBool = False


class RefusedView(BaseModel):
    """A rate that was read from the list and is not used."""

    rate: Annotated[str, text_schema(RATE)]
    as_of: TimestampView
    reason: Refusal
    refused_at: TimestampView


class RateView(BaseModel):
    """The newest rate of a pair: one unit of `from` is worth `rate` units of `to`.

    Without a rate, `rate` is null: the first one that was read was refused. `fresh` is whether it is used.
    """

    model_config = with_examples(
        {
            "from": "KWD",
            "to": "USD",
            "rate": "3.2581",
            "as_of": "2030-01-07T18:00:00.000Z",
            "source": "api",
            "set_at": "2030-01-07T18:00:05.000Z",
            "fresh": True,
            "refused": None,
        }
    )

    from_: Annotated[str, text_schema("[A-Z]{3}"), Field(alias="from")]
    to: Annotated[str, text_schema("[A-Z]{3}")]
    rate: Annotated[str, text_schema(RATE)] | None
    as_of: TimestampView | None
    source: Literal["api", "ecb"] | None
    set_at: TimestampView | None
    fresh: bool
    refused: RefusedView | None


class RateList(BaseModel):
    """The newest rate of each pair."""

    data: list[RateView]


def rate_json(row: Row[Any] | None, refused: Row[Any] | None, *, fresh: bool) -> dict[str, Any]:
    """A pair in the shape of `RateView`; one of the two rows is there."""
    named = row if row is not None else refused
    assert named is not None
    return {
        "from": named.source_currency,
        "to": named.target_currency,
        "rate": None if row is None else row.rate,
        "as_of": None if row is None else rfc3339(row.as_of),
        "source": None if row is None else row.source,
        "set_at": None if row is None else rfc3339(row.set_at),
        "fresh": fresh,
        "refused": None
        if refused is None
        else {
            "rate": refused.rate,
            "as_of": rfc3339(refused.as_of),
            "reason": refused.refused,
            "refused_at": rfc3339(refused.set_at),
        },
    }
