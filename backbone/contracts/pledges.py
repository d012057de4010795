"""Events of pledges: the states of drives, creators and pledges, absolute and with a version."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict

from backbone.contracts.event import Event, MoneyField, Timestamp
from backbone.contracts.open_values import OpenValues
from backbone.ids import CreatorId, DonorId, DriveId, PledgeId

LocalizedText = str | dict[str, str]
"""A text, or one text per language: `{"en": …, "ar": …}`."""


class DriveState(StrEnum):
    """The state of a drive: `draft → live ⇄ paused → closed`."""

    DRAFT = "draft"
    LIVE = "live"
    PAUSED = "paused"
    CLOSED = "closed"


class PledgeStatus(StrEnum):
    """The status of a pledge; once money has moved, it follows from its payments."""

    OPEN = "open"
    PAID = "paid"
    PARTLY_REFUNDED = "partly_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"
    LAPSED = "lapsed"
    CANCELLED = "cancelled"


class MessageState(StrEnum):
    """The state of the name and message of a pledge: what `approved` and `pinned` ones say may be shown."""

    HELD = "held"
    APPROVED = "approved"
    HIDDEN = "hidden"
    PINNED = "pinned"


class Milestone(BaseModel):
    """A goal to celebrate when the raised amount of the drive reaches it."""

    model_config = ConfigDict(frozen=True)

    title: LocalizedText
    amount: MoneyField


class Beneficiary(BaseModel):
    """Who receives what a drive raises, and how many ten-thousandths of it."""

    model_config = ConfigDict(frozen=True)

    name: str
    share_bps: int


class Source(BaseModel):
    """Where a donation came from: platform and campaign, no personal data."""

    model_config = ConfigDict(frozen=True)

    platform: str | None = None
    campaign: str | None = None


class DriveChanged(Event, name="pledges.drive_changed.v1", topic="pledges", key="drive_id"):
    """The whole state of a drive; a higher version replaces a lower one."""

    drive_id: DriveId
    version: int
    state: Annotated[DriveState | str, OpenValues(DriveState)]
    slug: str
    title: LocalizedText
    currency: str
    goal: MoneyField
    milestones: list[Milestone]
    test: bool
    changed_at: Timestamp
    partner: str | None = None
    """The partner that owns the drive; None in events of versions before ownership."""
    beneficiaries: list[Beneficiary] | None = None
    """Fixed once the drive was opened; None in events of versions before disbursements."""
    currencies: list[str] | None = None
    """The currencies that it takes besides its own; None in events of versions before exchange rates."""


class CreatorChanged(Event, name="pledges.creator_changed.v1", topic="pledges", key="drive_id"):
    """The whole state of a creator who raises money for a drive."""

    creator_id: CreatorId
    drive_id: DriveId
    version: int
    slug: str
    name: str
    team: str | None


class PledgeState(BaseModel):
    """The whole state of a pledge; a higher version replaces a lower one."""

    pledge_id: PledgeId
    drive_id: DriveId
    version: int
    status: Annotated[PledgeStatus | str, OpenValues(PledgeStatus)]
    amount: MoneyField
    donor_id: DonorId
    creator_id: CreatorId | None
    source: Source | None
    partner: str
    checkout_mode: Annotated[str, OpenValues(("hosted", "embedded"))]
    locale: str | None
    test: bool
    made_at: Timestamp
    anonymous: bool | None = None
    """Whether the donor is not named: they asked for it, or gave no name. Stated by PledgeMade only; None in
    PledgeChanged and in events of versions before it.
    """
    reporting_amount: MoneyField | None = None
    """What an amount in another currency was worth in its drive's when it was pledged; else None."""


class PledgeMade(PledgeState, Event, name="pledges.pledge_made.v1", topic="pledges", key="drive_id"):
    """A pledge was created (version 1)."""

    client: str | None = None
    """The client that made it, as a hash with a key that the gateway forgets after two days; None for
    partners' servers, and in events of versions before it.
    """
    purpose: Annotated[str, OpenValues(("zakat", "sadaqah"))] | None = None
    """What the donor declared it as. `zakat` is of drives that take it, and kept in accounts of its own. None
    where the donor declared nothing, and in events of versions before it.
    """


class PledgeChanged(PledgeState, Event, name="pledges.pledge_changed.v1", topic="pledges", key="drive_id"):
    """The state of a pledge has changed."""


class MessageModerated(Event, name="pledges.message_moderated.v1", topic="pledges", key="drive_id"):
    """A moderator decided about the name and message of a pledge, which events do not carry.

    `version` counts the decisions about this pledge; a higher one replaces a lower one.
    """

    pledge_id: PledgeId
    drive_id: DriveId
    version: int
    state: Annotated[MessageState | str, OpenValues(MessageState)]
    moderated_at: Timestamp


class AlertControl(BaseModel):
    """A skip or a replay of alerts: the version that it made, when, and whose donation is shown again.

    Without a pledge, each screen shows its own last one again.
    """

    model_config = ConfigDict(frozen=True)

    version: int
    at: Timestamp
    pledge_id: PledgeId | None = None


class AlertsControlled(Event, name="pledges.alerts_controlled.v1", topic="pledges", key="drive_id"):
    """How a drive's overlays are to show alerts: the whole state; a higher version replaces a lower one.

    `skip` and `replay` are the newest ones. One whose version a screen has seen is not to be repeated.
    """

    drive_id: DriveId
    version: int
    paused: bool
    skip: AlertControl | None
    replay: AlertControl | None
