"""A new pledge on its way through intake: the command, what it resolves to, and its rows and event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row

from backbone import ids
from backbone.contracts.pledges import MessageState, PledgeMade, PledgeStatus, Source
from backbone.http.caller import Caller
from backbone.idempotency import ScopedKey
from backbone.ids import CreatorId, DonorId, DriveId, PledgeId
from backbone.money import Money
from services.pledges.donor_texts import normalized, visible
from services.pledges.moderation.filters import held_texts
from services.pledges.requests import PledgeRequest
from services.pledges.views import moderation_setting


@dataclass(frozen=True, slots=True)
class MakePledge:
    """Create the requested pledge on the drive with this slug or id; `body_hash` is that of the body.

    `client` is who sends it, as the gateway names it (see `PledgeMade.client`).
    """

    drive: str
    request: PledgeRequest
    caller: Caller
    key: str
    body_hash: str
    client: str | None = None


class ResolvedCommand(NamedTuple):
    """A command with its drive, and the partner that makes the pledge."""

    command: MakePledge
    drive: Row[Any]
    partner: str
    key: ScopedKey
    body_hash: str


class NewPledge(NamedTuple):
    """A valid request, with the values that its rows need."""

    resolved: ResolvedCommand
    pledge_id: PledgeId
    creator_id: CreatorId | None
    reporting: Money | None
    address_mac: bytes | None
    reply: bytes


def pledge_made(new_pledge: NewPledge, donors: Mapping[tuple[str, bytes], str], now: datetime) -> PledgeMade:
    """The event of a pledge; `donors` are known by partner and hashed address."""
    resolved, request = new_pledge.resolved, new_pledge.resolved.command.request
    known = None if new_pledge.address_mac is None else donors[resolved.partner, new_pledge.address_mac]
    source = request.source
    return PledgeMade(
        pledge_id=new_pledge.pledge_id,
        drive_id=DriveId(resolved.drive.id),
        version=1,
        status=PledgeStatus.OPEN,
        amount=request.amount.money(),
        donor_id=DonorId(known or ids.new("dnr")),  # without an address, each donation counts as a new donor
        creator_id=new_pledge.creator_id,
        source=None if source is None else Source(platform=source.platform, campaign=source.campaign),
        partner=resolved.partner,
        checkout_mode=request.checkout_mode,
        locale=request.donor.locale,
        test=resolved.drive.test,
        made_at=now,
        anonymous=request.donor.anonymous or normalized(request.donor.name) is None,
        reporting_amount=new_pledge.reporting,
        client=resolved.command.client,
        purpose=request.purpose,
    )


def pledge_row(new_pledge: NewPledge, made: PledgeMade) -> dict[str, Any]:
    """The row of a pledge, equal to its event where they have the same fields."""
    request, source, reporting = new_pledge.resolved.command.request, made.source, new_pledge.reporting
    return {
        "id": made.pledge_id,
        "drive_id": made.drive_id,
        "creator_id": made.creator_id,
        "donor_id": made.donor_id,
        "partner": made.partner,
        "version": made.version,
        "status": str(made.status),
        "amount": made.amount.minor_units,
        "currency": made.amount.currency,
        "reporting_amount": None if reporting is None else reporting.minor_units,
        "reporting_currency": None if reporting is None else reporting.currency,
        "locale": made.locale,
        "platform": source.platform if source else None,
        "campaign": source.campaign if source else None,
        "reference": request.reference,
        "return_url": request.return_url,
        "checkout_mode": made.checkout_mode,
        "purpose": request.purpose,
        "test": made.test,
        "made_at": made.made_at,
    }


def donor_text_row(new_pledge: NewPledge) -> dict[str, Any] | None:
    """The row of the donor's texts, None where there are none."""
    request = new_pledge.resolved.command.request
    donor = request.donor
    name, message = normalized(donor.name), normalized(request.message)
    referrer = request.source.referrer if request.source else None
    if not (name or message or donor.email or referrer):
        return None
    row: dict[str, Any] = {
        "pledge_id": new_pledge.pledge_id,
        "name": name,
        "email": donor.email,
        "message": message,
        "referrer": referrer,
        "anonymous": donor.anonymous,
        "approved": False,  # processes of a version that reads it show nothing
    }
    return row | _moderated(new_pledge, None if donor.anonymous else name, message)


def _moderated(new_pledge: NewPledge, name: str | None, message: str | None) -> dict[str, Any]:
    """The columns of what a moderator can decide about, by the drive's setting."""
    if not ((name and visible(name)) or (message and visible(message))):
        return {"drive_id": None, "state": None, "held": None}
    drive = new_pledge.resolved.drive
    amount = new_pledge.reporting or new_pledge.resolved.command.request.amount.money()
    setting = moderation_setting(drive.moderation, drive.currency)
    held = held_texts({"name": name, "message": message}, amount.minor_units, setting)
    state = MessageState.HELD if held else MessageState.APPROVED
    return {"drive_id": drive.id, "state": state.value, "held": held or None}
