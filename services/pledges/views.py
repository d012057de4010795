"""Responses of the public API: drives, creators and pledges. Events of pledges."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from fastapi import Response
from pydantic import BaseModel
from sqlalchemy import Row

from backbone.clock import rfc3339
from backbone.contracts.pledges import (
    Beneficiary,
    CreatorChanged,
    DriveChanged,
    DriveState,
    LocalizedText,
    MessageModerated,
    MessageState,
    Milestone,
    PledgeChanged,
    PledgeStatus,
    Source,
)
from backbone.http.fields import (
    CreatorIdView,
    DriveIdView,
    MoneyView,
    PledgeIdView,
    TimestampView,
    with_examples,
)
from backbone.ids import CreatorId, DriveId
from backbone.money import Money, as_json, parse
from services.pledges.moderation.filters import Mode as ModerationMode
from services.pledges.moderation.filters import Setting

DEFAULT_MODERATION: Final[Mapping[str, Any]] = {
    "mode": "filtered",
    "auto_approve_below": None,
    "blocked_words": [],
}
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class BeneficiaryView(BaseModel):
    """Who receives, and how many ten-thousandths of it."""

    name: str
    share_bps: int


class ImpactView(BaseModel):
    """What an amount pays for."""

    label: LocalizedText
    cost: MoneyView


class MilestoneView(BaseModel):
    """An amount to celebrate."""

    title: LocalizedText
    amount: MoneyView


class ModerationView(BaseModel):
    """How donors' names and messages are moderated."""

    mode: ModerationMode
    auto_approve_below: MoneyView | None
    blocked_words: list[str]


class DriveView(BaseModel):
    """A drive. `moderation` is null for those who may not change the drive."""

    model_config = with_examples(
        {
            "id": "drv_01frtz5n00000000000000000a",
            "slug": "winter",
            "state": "live",
            "title": {"en": "Let's make their winter warmer", "ar": "لنجعل شتاءهم أدفأ"},
            "currency": "USD",
            "currencies": ["AED", "KWD"],
            "goal": {"currency": "USD", "value": "10000000.00"},
            "starts_at": None,
            "ends_at": "2030-01-31T18:00:00.000Z",
            "description": None,
            "beneficiaries": [],
            "permit": None,
            "zakat_eligible": False,
            "impact": [],
            "milestones": [{"title": "Half way", "amount": {"currency": "USD", "value": "5000000.00"}}],
            "menu": [{"currency": "USD", "value": "25.00"}],
            "moderation": {
                "mode": "all",
                "auto_approve_below": {"currency": "USD", "value": "100.00"},
                "blocked_words": ["lottery"],
            },
            "test": False,
            "partner": "aboflah",
            "partners": None,
            "created_at": "2030-01-07T18:00:00.000Z",
        }
    )

    id: DriveIdView
    slug: str
    state: DriveState
    title: LocalizedText
    currency: str
    currencies: list[str]
    goal: MoneyView
    starts_at: TimestampView | None
    ends_at: TimestampView | None
    description: LocalizedText | None
    beneficiaries: list[BeneficiaryView]
    permit: str | None
    zakat_eligible: bool
    impact: list[ImpactView]
    milestones: list[MilestoneView]
    menu: list[MoneyView]
    moderation: ModerationView | None
    test: bool
    partner: str
    partners: list[str] | None
    created_at: TimestampView


class DriveList(BaseModel):
    """A page of drives, newest first."""

    data: list[DriveView]
    next: str | None


class CreatorView(BaseModel):
    """A creator who raises for a drive."""

    model_config = with_examples(
        {
            "id": "crt_01frtz5n00000000000000000b",
            "drive": "drv_01frtz5n00000000000000000a",
            "slug": "aboflah",
            "name": "AboFlah",
            "channel_url": "https://example.org/aboflah",
            "team": None,
            "goal": None,
            "created_at": "2030-01-07T18:00:00.000Z",
        }
    )

    id: CreatorIdView
    drive: DriveIdView
    slug: str
    name: str
    channel_url: str | None
    team: str | None
    goal: MoneyView | None
    created_at: TimestampView


class CreatorList(BaseModel):
    """A page of creators, oldest first."""

    data: list[CreatorView]
    next: str | None


class CheckoutView(BaseModel):
    """Where the donor pays."""

    url: str | None
    client_secret: str | None
    publishable_key: str | None
    expires_at: TimestampView | None


class QueueView(BaseModel):
    """How long until there is a checkout."""

    position: int
    eta_seconds: int


class PledgeView(BaseModel):
    """A pledge."""

    id: PledgeIdView
    drive: DriveIdView
    creator: CreatorIdView | None
    amount: MoneyView
    purpose: Literal["zakat", "sadaqah"] | None
    status: Literal["open", "paid", "partly_refunded", "refunded", "disputed", "lapsed", "cancelled"]
    checkout: CheckoutView | None
    queue: QueueView | None
    token: str | None
    created_at: TimestampView


class PledgeList(BaseModel):
    """A page of pledges, newest first."""

    data: list[PledgeView]
    next: str | None


def drive_json(row: Row[Any]) -> dict[str, Any]:
    """A row of `drives` in the shape of `DriveView`."""
    return {
        "id": row.id,
        "slug": row.slug,
        "state": row.state,
        "title": row.title,
        "currency": row.currency,
        "currencies": row.currencies or [],
        "goal": as_json(row.goal, row.currency),
        "starts_at": _timestamp(row.starts_at),
        "ends_at": _timestamp(row.ends_at),
        "description": row.description,
        "beneficiaries": row.beneficiaries,
        "permit": row.permit,
        "zakat_eligible": row.zakat_eligible,
        "impact": row.impact,
        "milestones": row.milestones,
        "menu": row.menu,
        "moderation": row.moderation or DEFAULT_MODERATION,
        "test": row.test,
        "partner": row.partner,
        "partners": row.partners,
        "created_at": rfc3339(row.created_at),
    }


def moderation_setting(stored: Mapping[str, Any] | None, currency: str) -> Setting:
    """A drive's column `moderation` as the filters take it."""
    stored = stored or DEFAULT_MODERATION
    below = stored["auto_approve_below"]
    threshold = None if below is None else parse(below["value"], currency)
    return Setting(stored["mode"], threshold, stored["blocked_words"])


def _timestamp(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def creator_json(row: Row[Any], currency: str) -> dict[str, Any]:
    """A row of `creators` in the shape of `CreatorView`."""
    return {
        "id": row.id,
        "drive": row.drive_id,
        "slug": row.slug,
        "name": row.name,
        "channel_url": row.channel_url,
        "team": row.team,
        "goal": None if row.goal is None else as_json(row.goal, currency),
        "created_at": rfc3339(row.created_at),
    }


def pledge_json(row: Row[Any], token: str) -> dict[str, Any]:
    """A row of `pledges` in the shape of `PledgeView`, without `checkout` and `queue`."""
    return {
        "id": row.id,
        "drive": row.drive_id,
        "creator": row.creator_id,
        "amount": as_json(row.amount, row.currency),
        "purpose": row.purpose,
        "status": row.status,
        "token": token,
        "created_at": rfc3339(row.made_at),
    }


def json_response(view: Any) -> Response:
    """A response with `view` as compact JSON."""
    return Response(json_bytes(view), media_type="application/json")


def json_bytes(view: Any) -> bytes:
    """Compact JSON, in UTF-8."""
    return _ENCODER.encode(view).encode()


def drive_changed(row: Row[Any]) -> DriveChanged:
    """The event with the whole state of the drive in `row`."""
    return DriveChanged(
        drive_id=DriveId(row.id),
        version=row.version,
        state=DriveState(row.state),
        slug=row.slug,
        title=row.title,
        currency=row.currency,
        goal=Money(row.goal, row.currency),
        milestones=_milestones(row.milestones, row.currency),
        test=row.test,
        changed_at=row.changed_at,
        partner=row.partner,
        beneficiaries=[Beneficiary(**each) for each in row.beneficiaries],
        currencies=row.currencies or [],
    )


def _milestones(shown: Sequence[Any], currency: str) -> list[Milestone]:
    return [
        Milestone(title=one["title"], amount=Money(parse(one["amount"]["value"], currency), currency))
        for one in shown
    ]


def message_moderated(decision: Row[Any], drive_id: str) -> MessageModerated:
    """The event of a row of `decisions`."""
    return MessageModerated(
        pledge_id=decision.pledge_id,
        drive_id=DriveId(drive_id),
        version=decision.version,
        state=MessageState(decision.to_state),
        moderated_at=decision.at,
    )


def creator_changed(row: Row[Any]) -> CreatorChanged:
    """The event with the whole state of the creator in `row`."""
    return CreatorChanged(
        creator_id=CreatorId(row.id),
        drive_id=DriveId(row.drive_id),
        version=row.version,
        slug=row.slug,
        name=row.name,
        team=row.team,
    )


def pledge_changed(row: Row[Any], status: PledgeStatus) -> PledgeChanged:
    """The event that the pledge in `row` (its old state) is now in `status`, one version later."""
    has_source = row.platform is not None or row.campaign is not None
    return PledgeChanged(
        pledge_id=row.id,
        drive_id=row.drive_id,
        version=row.version + 1,
        status=status,
        amount=Money(row.amount, row.currency),
        donor_id=row.donor_id,
        creator_id=row.creator_id,
        source=Source(platform=row.platform, campaign=row.campaign) if has_source else None,
        partner=row.partner,
        checkout_mode=row.checkout_mode,
        locale=row.locale,
        test=row.test,
        made_at=row.made_at,
        reporting_amount=None
        if row.reporting_currency is None
        else Money(row.reporting_amount, row.reporting_currency),
    )


def new_pledge_json(
    pledge_id: str,
    drive_id: str,
    creator_id: str | None,
    amount: Money,
    purpose: str | None,
    now: datetime,
) -> bytes:
    """The body of the 201, without the token."""
    return json_bytes(
        {
            "id": pledge_id,
            "drive": drive_id,
            "creator": creator_id,
            "amount": as_json(amount.minor_units, amount.currency),
            "purpose": purpose,
            "status": PledgeStatus.OPEN.value,
            "checkout": None,
            "queue": None,
            "created_at": rfc3339(now),
        }
    )
