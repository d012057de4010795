"""Problem documents of pledges, and the translation of domain errors into them (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI, Request, Response

from backbone.http import problems
from backbone.http.fields import AmountTooLarge, AmountTooSmall
from backbone.http.problems import Conflict, Forbidden, Invalid, Problem
from services.pledges import domain
from services.pledges.moderation import alerts, states


class DriveClosed(Conflict):
    slug, title = "drive-closed", "The drive takes no pledges"


class DrivePaused(Conflict):
    slug, title = "drive-paused", "The drive is paused"


class RealMoneyOnTestDrive(Conflict):
    slug, title = "test-drive-needs-test-mode", "A test drive takes no real money"


class CurrencyNotAccepted(Invalid):
    slug, title = "currency-not-accepted", "The drive does not take this currency"


class NoExchangeRate(Conflict):
    slug, title = "no-exchange-rate", "There is no exchange rate for this currency now"


class SlugTaken(Conflict):
    slug, title = "slug-taken", "This slug is taken"


class IllegalTransition(Conflict):
    slug, title = "drive-state", "The drive's state does not allow this"


class FieldImmutable(Conflict):
    slug, title = "drive-field-fixed", "This field can no longer be changed"


class PartnerNotAllowed(Forbidden):
    slug, title = "partner-not-admitted", "This drive takes no pledges from this partner"


class PledgeNotOpen(Conflict):
    slug, title = "pledge-not-open", "Only a pledge that is open and unpaid can be cancelled"


class IllegalDecision(Conflict):
    slug, title = "message-state", "The message's state does not allow this"


class MessageDecided(Conflict):
    slug, title = "message-decided", "Another moderator has decided about this message"


class DonationNotCounted(Conflict):
    slug, title = "donation-not-counted", "The pledge has no donation that counts"


_PROBLEMS: Final[Mapping[type[domain.DomainError], type[Problem]]] = {
    domain.InvalidField: Invalid,
    domain.AmountNotCharged: Invalid,
    domain.CurrencyNotAccepted: CurrencyNotAccepted,
    domain.NoExchangeRate: NoExchangeRate,
    domain.AmountTooSmall: AmountTooSmall,
    domain.AmountTooLarge: AmountTooLarge,
    domain.DriveClosed: DriveClosed,
    domain.DrivePaused: DrivePaused,
    domain.RealMoneyOnTestDrive: RealMoneyOnTestDrive,
    domain.SlugTaken: SlugTaken,
    domain.IllegalTransition: IllegalTransition,
    domain.FieldImmutable: FieldImmutable,
    domain.PartnerNotAllowed: PartnerNotAllowed,
    domain.PledgeNotOpen: PledgeNotOpen,
    states.IllegalDecision: IllegalDecision,
    states.MessageDecided: MessageDecided,
    alerts.DonationNotCounted: DonationNotCounted,
}


def problem_of(error: domain.DomainError) -> Problem:
    """The problem that a broken rule is answered with."""
    return _PROBLEMS[type(error)](error.detail, errors=error.errors)


def install(app: FastAPI) -> None:
    """Answer every `DomainError` in `app` with its problem document."""

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, domain.DomainError)
        return problems.response(problem_of(error), request)

    app.add_exception_handler(domain.DomainError, answer)
