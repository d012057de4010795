"""Models of the gateway's own responses: the schemas of `/openapi.json` that no service defines.

They are used for documentation only: live reads are serialised once for all clients. Tests validate real
responses and real frames of the stream against them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema, models_json_schema

from backbone.http.fields import (
    CreatorIdView,
    DriveIdView,
    PledgeIdView,
    TimestampView,
    id_schema,
    text_schema,
)
from backbone.money import as_json

SCHEMAS: Final = "#/components/schemas/"

Count = Annotated[int, Field(ge=0)]
Text = str | dict[str, str]
"""One text, or one for each language: `{"en": "…", "ar": "…"}`."""


def _example(**fields: Any) -> ConfigDict:
    examples: Any = [fields]
    return ConfigDict(json_schema_extra={"examples": examples})


def _usd(minor_units: int) -> dict[str, str]:
    return as_json(minor_units, "USD")


_TITLE: Final = {"en": "Let's make their winter warmer", "ar": "لنجعل شتاءهم أدفأ"}
_DRIVE: Final = "drv_01frtz5n00000000000000000a"
_CREATOR: Final = "crt_01frtz5n00000000000000000b"
_PLEDGE: Final = "plg_01frtz5n00000000000000000c"
_MOMENT: Final = "2026-01-07T18:00:00.000Z"


class Money(BaseModel):
    """An amount: a decimal string with exactly the digits that ISO 4217 gives the currency."""

    model_config = _example(currency="USD", value="25.00")

    currency: Annotated[str, text_schema("[A-Z]{3}")]
    value: Annotated[str, text_schema(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")]


class FieldError(BaseModel):
    """An invalid part of the request."""

    pointer: str = Field(description="JSON Pointer (RFC 6901), or `/query/…` and `/header/…`.")
    detail: str


class Problem(BaseModel):
    """An error (RFC 9457). `type` identifies it; `title` and `detail` are for people and may change."""

    model_config = _example(
        type="/problems/invalid-request",
        title="Invalid request",
        status=422,
        detail="Some fields are invalid.",
        request_id="7a95ef8c30df46c5dc31014b",
        errors=[{"pointer": "/amount/value", "detail": "must be more than zero"}],
    )

    type: str = Field(json_schema_extra={"format": "uri-reference"})
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str | None = Field(default=None, json_schema_extra={"type": "string"})
    request_id: str = Field(description="The same as in the header `X-Request-Id`.")
    errors: list[FieldError] = Field(default_factory=list, description="With 422: the invalid parts.")


class ByState(BaseModel):
    """The drive's money by status. `disputed` is open and lost disputes; `captured` excludes `held`."""

    pledged: Money
    captured: Money
    refunded: Money
    disputed: Money
    offline: Money
    matched: Money
    held: Money


class PerMinute(BaseModel):
    """The last 60 seconds."""

    donations: Count
    raised: Money


class Milestone(BaseModel):
    """An amount to celebrate; `reached_at` is null until it is reached."""

    title: Text
    amount: Money
    reached_at: TimestampView | None


class Leader(BaseModel):
    """One of the ten creators who raised the most."""

    rank: Count
    creator: CreatorIdView
    slug: str
    name: str
    raised: Money
    donations: Count


class Donation(BaseModel):
    """A donation as it may be shown: `name` is null for anonymous donors, `message` if there is none."""

    id: Annotated[str, id_schema("don")]
    name: str | None
    message: str | None
    amount: Money
    reporting_amount: Money = Field(description="`amount` in the drive's currency.")
    creator: CreatorIdView | None
    at: TimestampView


_ALERTS: Final = {"version": 1, "paused": False, "skip": {"version": 1, "at": _MOMENT}, "replay": None}
_BRIEF: Final[dict[str, Any]] = {
    "drive": _DRIVE,
    "slug": "winter",
    "title": _TITLE,
    "currency": "USD",
    "raised": _usd(1_105_317_400),
    "goal": _usd(1_000_000_000),
    "percent": 110.5,
    "donations": 155_102,
    "donors": 155_065,
    "by_state": {
        "pledged": _usd(12_500),
        "captured": _usd(1_105_422_400),
        "refunded": _usd(5_000),
        "disputed": _usd(100_000),
        "offline": _usd(0),
        "matched": _usd(0),
        "held": _usd(0),
    },
    "per_minute": {"donations": 41, "raised": _usd(102_500)},
    "milestones": [{"title": {"en": "Ten million"}, "amount": _usd(1_000_000_000), "reached_at": _MOMENT}],
    "matching": [
        {
            "id": "mch_01frtz5n00000000000000000f",
            "sponsor": "Acme",
            "cap": _usd(500_000),
            "used": _usd(0),
            "ratio": "1.00",
            "creator": None,
        }
    ],
    "epoch": 1,
    "sequence": 155_391,
    "as_of": _MOMENT,
    "state": "live",
    "lag_ms": 84,
}
_LEADERS: Final = [
    {
        "rank": 1,
        "creator": _CREATOR,
        "slug": "aboflah",
        "name": "AboFlah",
        "raised": _usd(1_105_317_400),
        "donations": 155_102,
    }
]
_RECENT: Final = [
    {
        "id": "don_01frtz5n00000000000000000d",
        "name": "Layla",
        "message": None,
        "amount": _usd(2_500),
        "reporting_amount": _usd(2_500),
        "creator": _CREATOR,
        "at": _MOMENT,
    }
]


class AlertSkip(BaseModel):
    """A skip: overlays remove the alerts on the screen, once for each `version`."""

    version: Count
    at: TimestampView


class AlertReplay(BaseModel):
    """A replay: overlays show a donation again, once for each `version`; null means their own last one."""

    version: Count
    at: TimestampView
    donation: Donation | None


class AlertsState(BaseModel):
    """How overlays are to show alerts; a skip or replay is here for a minute. `version` counts changes."""

    version: Count
    paused: bool
    skip: AlertSkip | None
    replay: AlertReplay | None


class MatchingShare(BaseModel):
    """A sponsor that adds `ratio` of each gift until `cap` is used."""

    id: Annotated[str, id_schema("mch")]
    sponsor: str
    cap: Money
    used: Money
    ratio: Annotated[str, text_schema("[0-9]{1,3}[.][0-9]{2,4}")]
    creator: Annotated[str, id_schema("crt")] | None = Field(
        default=None, description="The creator whose gifts alone are matched; null where all gifts are."
    )


class TotalsBrief(BaseModel):
    """A drive's totals without `leaders`, `recent`, and what names donors.

    `raised` is captured, offline and matched money, less what was refunded or is disputed.
    """

    model_config = _example(**_BRIEF)

    drive: DriveIdView
    slug: str
    title: Text
    currency: str
    raised: Money
    goal: Money
    percent: float = Field(ge=0, description="Of the goal, rounded down to one decimal.")
    donations: Count
    donors: Count
    by_state: ByState
    per_minute: PerMinute
    milestones: list[Milestone]
    matching: list[MatchingShare] = Field(
        description="Sponsors whose pools are open or used up; those with something left first, 20 at most."
    )
    epoch: Count = Field(description="Rises when the log had to be restored; sequences start again.")
    sequence: Count = Field(description="The last row of the drive's log that these totals include.")
    as_of: TimestampView = Field(description="Everything before this moment is included.")
    state: Literal["live", "catching_up", "frozen"] = Field(description="How fresh the totals are.")
    lag_ms: Count
    degraded: list[Literal["recent", "boards", "snapshots", "streams", "pledges"]] = Field(
        default=[],
        description="What gives way under overload, in this order; absent while nothing does.",
    )


class Totals(TotalsBrief):
    """A drive's totals.

    `raised` is captured, offline and matched money, less what was refunded or is disputed.
    """

    model_config = _example(**_BRIEF, alerts=_ALERTS, pinned=None, leaders=_LEADERS, recent=_RECENT)

    alerts: AlertsState
    pinned: Donation | None = Field(description="The donation whose message a moderator pinned last.")
    leaders: list[Leader]
    recent: list[Donation]


class TotalsList(BaseModel):
    """The totals of several drives."""

    data: list[TotalsBrief]


class FunnelRow(BaseModel):
    """A source's way to money. `source` is null for links that name none, `(other)` for many small ones."""

    source: str | None
    platform: str | None
    campaign: str | None
    seen: Count = Field(description="Views of the public pages.")
    opened: Count = Field(description="Views of the donate form.")
    pledged: Count
    paid: Count = Field(description="Gifts whose net is above 0.")
    raised: Money


class Funnel(BaseModel):
    """A drive's funnel by source; the whole hours from `since` until before `until`."""

    model_config = _example(
        drive=_DRIVE,
        since="2026-01-07T18:00:00.000Z",
        until="2026-01-08T18:00:00.000Z",
        data=[
            {
                "source": "tiktok/winter",
                "platform": "tiktok",
                "campaign": "winter",
                "seen": 5120,
                "opened": 1300,
                "pledged": 410,
                "paid": 388,
                "raised": _usd(1124150),
            }
        ],
    )

    drive: DriveIdView
    since: TimestampView
    until: TimestampView
    data: list[FunnelRow]


class Checkout(BaseModel):
    """Where the donor pays: `url` for a hosted checkout, `client_secret` for an embedded one."""

    url: str | None
    client_secret: str | None
    publishable_key: str | None
    expires_at: TimestampView | None


class Queue(BaseModel):
    """The pledge's place in the checkout queue."""

    position: Count
    eta_seconds: Count


_PLEDGED: Final[dict[str, Any]] = {
    "id": _PLEDGE,
    "drive": _DRIVE,
    "creator": _CREATOR,
    "amount": _usd(2_500),
    "purpose": None,
    "status": "open",
    "checkout": {
        "url": "http://127.0.0.1:8012/c/pay/cs_test_…",
        "client_secret": None,
        "publishable_key": None,
        "expires_at": _MOMENT,
    },
    "queue": None,
    "token": "kJ0rGm1vVY0e4uNqO3xw1H5Yt2bXcA9d",
    "created_at": _MOMENT,
}


class Pledge(BaseModel):
    """A pledge, with its checkout once there is one.

    `token` reads this pledge and nothing else; it is null for a request with a publishable key.
    """

    model_config = _example(**_PLEDGED)

    id: PledgeIdView
    drive: DriveIdView
    creator: CreatorIdView | None
    amount: Money
    purpose: Literal["zakat", "sadaqah"] | None
    status: Literal["open", "paid", "partly_refunded", "refunded", "disputed", "lapsed", "cancelled"]
    checkout: Checkout | None
    queue: Queue | None
    token: str | None
    created_at: TimestampView


class PledgeList(BaseModel):
    """A page of pledges, newest first; `next` goes into `after`.

    With `status` a page may have fewer than `limit` pledges: one whose status has just changed is left out.
    """

    data: list[Pledge]
    next: str | None


_ROW: Final[dict[str, Any]] = {
    "sequence": 155_391,
    "type": "donation.counted",
    "at": _MOMENT,
    "payment": "pay_01frtz5n00000000000000000d",
    "pledge": _PLEDGE,
    "creator": _CREATOR,
    "amount": _usd(2_500),
    "raised_after": _usd(1_105_317_400),
    "hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


class LogRow(BaseModel):
    """A row of a drive's log. `amount` is the size of the change, null if no money moved."""

    model_config = _example(**_ROW)

    sequence: int = Field(ge=1)
    type: str
    at: TimestampView
    payment: Annotated[str, id_schema("pay")] | None
    pledge: PledgeIdView | None
    creator: CreatorIdView | None
    amount: Money | None
    raised_after: Money
    hash: str = Field(description="SHA-256 over this row and the hash of the row before it.")
    reporting_amount: Money | SkipJsonSchema[None] = Field(
        None,
        description="`amount` in the drive's currency. Rows of the log have it where they differ.",
    )


class DonationRow(LogRow):
    """The row of a donation, with the name and message that may be shown, and `reporting_amount`."""

    model_config = _example(
        id="don_01frtz5n00000000000000000d", name="Layla", message=None, reporting_amount=_usd(2_500), **_ROW
    )

    id: Annotated[str, id_schema("don")]
    name: str | None
    message: str | None


_REACHED: Final[dict[str, Any]] = {
    **_ROW, "type": "milestone.reached", "payment": None, "pledge": None, "creator": None,
    "title": {"en": "Half way"}, "reached_at": _MOMENT,
}  # fmt: skip


class MilestoneRow(LogRow):
    """The row of a milestone, with its title and when it was reached; `amount` is the milestone's.

    `title` is null where the milestone has left the drive, or the drive cannot be read.
    """

    model_config = _example(**_REACHED)

    title: Text | None
    reached_at: TimestampView


class Gap(BaseModel):
    """Rows of the log after the sequence `after` were not sent: read them at `events`."""

    after: Count
    events: str


class Drain(BaseModel):
    """An empty object: the process is about to stop; reconnect."""


def _json_of(model: type[BaseModel]) -> Any:
    """A string that contains JSON of this model."""
    schema: Any = {"$ref": f"{SCHEMAS}{model.__name__}"}
    return Field(json_schema_extra={"contentMediaType": "application/json", "contentSchema": schema})


_Sequence = Annotated[str, text_schema("[0-9]{1,19}")]


class TotalsEvent(BaseModel):
    """The newest totals. They never go back in (epoch, sequence), and older ones may be left out."""

    event: Literal["totals"]
    data: str = _json_of(Totals)


class DonationEvent(BaseModel):
    """A donation, once per connection, in the order of the log."""

    event: Literal["donation"]
    id: _Sequence
    data: str = _json_of(DonationRow)


class MilestoneEvent(BaseModel):
    """A milestone that was reached."""

    event: Literal["milestone"]
    id: _Sequence
    data: str = _json_of(MilestoneRow)


class GapEvent(BaseModel):
    """Rows were missed."""

    event: Literal["gap"]
    data: str = _json_of(Gap)


class DrainEvent(BaseModel):
    """The stream ends; reconnect."""

    event: Literal["drain"]
    data: str = _json_of(Drain)


Base64Hash = Annotated[str, Field(pattern="^[A-Za-z0-9+/]{43}=$")]


class GiftProof(BaseModel):
    """The proof that a gift is in its drive's log. Hashes are SHA-256 in base64."""

    row: LogRow
    leaf_hash: Base64Hash = Field(description="SHA-256 of 0x00 and the row as canonical JSON.")
    index: Count = Field(description="The row's place in the tree, from 0.")
    inclusion_path: list[Base64Hash] = Field(description="From the leaf up (RFC 9162, section 2.1.3).")
    tree_size: Count
    checkpoint: str = Field(description="The signed head of the tree.")


class WebhookReceived(BaseModel):
    """The event is stored, now or before."""

    received: Literal[True]


SHARED: Final = frozenset(one.__name__ for one in (Money, Checkout, Queue, Pledge, PledgeList, LogRow))
"""What a service describes too, less fully: these schemas stand for the service's of the same name."""

STREAM_EVENTS: Final = (TotalsEvent, DonationEvent, MilestoneEvent, GapEvent, DrainEvent)
_OTHERS: Final = (
    Funnel,
    Problem,
    Totals,
    TotalsList,
    Pledge,
    PledgeList,
    DonationRow,
    LogRow,
    MilestoneRow,
    Gap,
    Drain,
    WebhookReceived,
    GiftProof,
)


def schemas() -> dict[str, Any]:
    """Every schema here, by name."""
    wanted = [(model, "serialization") for model in (*_OTHERS, *STREAM_EVENTS)]
    _, found = models_json_schema(wanted, ref_template=f"{SCHEMAS}{{model}}")  # type: ignore[arg-type]
    defined: dict[str, Any] = found["$defs"]
    return defined
