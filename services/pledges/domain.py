"""The rules of promising: where a drive may go, what a pledge's status is, what the processor takes.

No I/O. Problems are raised as the situation they name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final

from backbone.bodies import AmountTooLargeValue, AmountTooSmallValue
from backbone.contracts.payments import PaymentStatus, pledge_status
from backbone.contracts.pledges import DriveState, PledgeStatus
from backbone.money import Money
from backbone.problems import Conflict, Forbidden, Invalid, ProblemValue
from backbone.stripe_amounts import largest, smallest, step

DRAFT, LIVE, PAUSED, CLOSED = DriveState.DRAFT, DriveState.LIVE, DriveState.PAUSED, DriveState.CLOSED


class DriveClosed(Conflict):
    slug, title = "drive-closed", "The drive takes no pledges"


class DrivePaused(Conflict):
    slug, title = "drive-paused", "The drive is paused"


class RealMoneyOnTestDrive(Conflict):
    slug, title = "test-drive-needs-test-mode", "A test drive takes no real money"


class SlugTaken(Conflict):
    slug, title = "slug-taken", "This slug is taken"


class IllegalMove(Conflict):
    slug, title = "drive-state", "The drive cannot do that from where it stands"


class DriveMove(StrEnum):
    """What can be done with a drive."""

    OPEN = "open"
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "close"


POSITIONS: Final[Mapping[DriveState, Mapping[DriveMove, DriveState | None]]] = {
    DRAFT: {DriveMove.OPEN: LIVE, DriveMove.PAUSE: None, DriveMove.RESUME: None, DriveMove.CLOSE: None},
    LIVE: {DriveMove.OPEN: LIVE, DriveMove.PAUSE: PAUSED, DriveMove.RESUME: LIVE, DriveMove.CLOSE: CLOSED},
    PAUSED: {DriveMove.OPEN: None, DriveMove.PAUSE: PAUSED, DriveMove.RESUME: LIVE, DriveMove.CLOSE: CLOSED},
    CLOSED: {DriveMove.OPEN: None, DriveMove.PAUSE: None, DriveMove.RESUME: None, DriveMove.CLOSE: CLOSED},
}
"""Where each move leads from each state (`draft → live ⇄ paused → closed`); None is illegal.

A move that leads to where the drive already stands is a repeat, and silent.
"""


def move(state: DriveState, what: DriveMove) -> DriveState:
    """Where `what` leads from `state`; raises `IllegalMove`."""
    after = POSITIONS[state][what]
    if after is None:
        raise IllegalMove(f"A drive that is {state.value} cannot {what.value}.")
    return after


_WORDS: Final = frozenset({"title", "description", "beneficiaries", "permit", "impact"})
_WHILE_GIVING: Final = _WORDS | {"goal", "ends_at", "milestones", "menu", "partners"}
CHANGEABLE: Final[Mapping[DriveState, frozenset[str]]] = {
    DRAFT: _WHILE_GIVING | {"slug", "starts_at", "zakat_eligible", "test"},
    LIVE: _WHILE_GIVING,
    PAUSED: _WHILE_GIVING,
    CLOSED: _WORDS,
}
"""Which of a drive's fields may change in each state.

The currency never does: whoever counts takes it from the first word of a drive. Once a drive was
live its address is on people's screens, and what a gift was given under (zakat, test) stays.
"""


class FieldFixed(Conflict):
    slug, title = "drive-field-fixed", "This can no longer be changed"


def check_changes(state: DriveState, fields: Iterable[str]) -> None:
    """Raises `FieldFixed` where a drive in `state` may not change one of `fields`."""
    fixed = sorted(set(fields) - CHANGEABLE[state])
    if fixed:
        detail = f"fixed in a drive that is {state.value}"
        raise FieldFixed(
            f"A drive that is {state.value} keeps its {', '.join(fixed)}.",
            errors=[{"pointer": f"/{name}", "detail": detail} for name in fixed],
        )


def check_takes_pledges(state: str) -> None:
    """Raises `DriveClosed` or `DrivePaused` where a drive in `state` takes no pledge."""
    if state == PAUSED:
        raise DrivePaused("It goes on later.")
    if state != LIVE:
        raise DriveClosed("It is not open yet." if state == DRAFT else "It is over.")


def check_charges(test: bool, moves_real_money: bool) -> None:
    """Raises `RealMoneyOnTestDrive` where a pledge to a test drive would charge a real card."""
    if test and moves_real_money:
        raise RealMoneyOnTestDrive("Stripe's key is a live one: use a test key or the sandbox.")


class PartnerLeftOut(Forbidden):
    slug, title = "partner-not-admitted", "This drive takes no pledges from this partner"


def check_admits(partner: str, owner: str, partners: Collection[str] | None) -> None:
    """Raises `PartnerLeftOut` where `partner` may not pledge to a drive of `owner`.

    `partners` is the drive's list of partners who may pledge besides its owner; None is any.
    """
    if partners is not None and partner != owner and partner not in partners:
        raise PartnerLeftOut("The drive names the partners who may pledge to it.")


_UNPAID: Final = frozenset({PledgeStatus.OPEN, PledgeStatus.LAPSED})


def standing(payments: Iterable[PaymentStatus], *, cancelled: bool) -> PledgeStatus:
    """What a pledge is; one that was `cancelled` stays so until money comes all the same."""
    status = pledge_status(payments)
    return PledgeStatus.CANCELLED if cancelled and status in _UNPAID else status


class NotOpen(Conflict):
    slug, title = "pledge-not-open", "Only a pledge that is open and unpaid can be cancelled"


def check_cancels(status: PledgeStatus) -> bool:
    """Whether cancelling changes a pledge in `status`; a repeat does not. Raises `NotOpen`."""
    if status not in (PledgeStatus.OPEN, PledgeStatus.CANCELLED):
        raise NotOpen(f"It is {status.value}.")
    return status is PledgeStatus.OPEN


# Amounts: the limits themselves are `backbone.stripe_amounts`'s.


def check_amount(amount: Money, currency: str) -> None:
    """Raises `Invalid`, `AmountTooSmall` or `AmountTooLarge` where no drive in `currency` takes `amount`."""
    if amount.currency != currency:
        raise _unfit("/amount/currency", f"this drive takes {currency}")
    try:
        check_charged(amount)
    except ProblemValue as error:
        raise error.problem([{"pointer": "/amount/value", "detail": str(error)}]) from None
    except ValueError as error:
        raise _unfit("/amount/value", str(error)) from None


def check_charged(amount: Money) -> None:
    """Raises ValueError for an amount that the processor does not take; larger gifts come offline.

    Its subclasses `AmountTooSmallValue` and `AmountTooLargeValue` have problem types of their own.
    """
    currency = amount.currency
    if amount.minor_units < smallest(currency):
        raise AmountTooSmallValue(f"at least {Money(smallest(currency), currency)}")
    if amount.minor_units > largest(currency):
        raise AmountTooLargeValue(f"at most {Money(largest(currency), currency)} at once")
    if amount.minor_units % step(currency):
        raise ValueError(f"must be a multiple of {Money(step(currency), currency)}")


def _unfit(pointer: str, detail: str) -> Invalid:
    return Invalid("Some fields do not fit.", errors=[{"pointer": pointer, "detail": detail}])


def unknown_creator() -> Invalid:
    """The problem of a pledge that credits nobody the drive knows."""
    return _unfit("/creator", "no such creator in this drive (ids and slugs are in lower case)")


# What only this service can make: tokens and donors known again.


class Secrets:
    """Makes pledges' tokens and donors' marks out of one secret, kept apart by their purpose."""

    def __init__(self, secret: str) -> None:
        self._tokens = _derived(secret, b"ataa.pledge-token.v1")
        self._addresses = _derived(secret, b"ataa.donor-address.v1")

    def token(self, pledge_id: str) -> str:
        """The token that reads this pledge and nothing else: 32 characters of base64url."""
        mac = hmac.digest(self._tokens, pledge_id.encode(), "sha256")
        return base64.urlsafe_b64encode(mac[:24]).decode()

    def address_mac(self, partner: str, email: str) -> bytes:
        """What tells a partner's donors apart without keeping their addresses in the clear."""
        text = f"{partner}\n{normal_address(email)}"
        return hmac.digest(self._addresses, text.encode(), "sha256")


@lru_cache(maxsize=8)
def _derived(secret: str, purpose: bytes) -> bytes:
    return hmac.digest(secret.encode(), purpose, hashlib.sha256)


def normal_address(email: str) -> str:
    """One spelling an address: providers do not tell letters' case apart."""
    return email.strip().casefold()


def text_in(words: str | Mapping[str, str], locale: str | None) -> str:
    """The text in the reader's language, else in English, else in the first there is."""
    if isinstance(words, str):
        return words
    for language in (locale or "", (locale or "").partition("-")[0].lower(), "en"):
        if language in words:
            return words[language]
    return next(iter(words.values()))
