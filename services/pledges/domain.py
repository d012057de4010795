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

from backbone.contracts.payments import PaymentStatus, pledge_status
from backbone.contracts.pledges import DriveState, PledgeStatus
from backbone.http.fields import AmountTooLargeError, AmountTooSmallError
from backbone.http.problems import Conflict, Forbidden, Invalid, ProblemValueError
from backbone.money import DIGITS, Money
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


class IllegalTransition(Conflict):
    slug, title = "drive-state", "The drive cannot do that from where it stands"


class DriveTransition(StrEnum):
    """What can be done with a drive."""

    OPEN = "open"
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "close"


TRANSITIONS: Final[Mapping[DriveState, Mapping[DriveTransition, DriveState | None]]] = {
    DRAFT: {
        DriveTransition.OPEN: LIVE,
        DriveTransition.PAUSE: None,
        DriveTransition.RESUME: None,
        DriveTransition.CLOSE: None,
    },
    LIVE: {
        DriveTransition.OPEN: LIVE,
        DriveTransition.PAUSE: PAUSED,
        DriveTransition.RESUME: LIVE,
        DriveTransition.CLOSE: CLOSED,
    },
    PAUSED: {
        DriveTransition.OPEN: None,
        DriveTransition.PAUSE: PAUSED,
        DriveTransition.RESUME: LIVE,
        DriveTransition.CLOSE: CLOSED,
    },
    CLOSED: {
        DriveTransition.OPEN: None,
        DriveTransition.PAUSE: None,
        DriveTransition.RESUME: None,
        DriveTransition.CLOSE: CLOSED,
    },
}
"""Where each move leads from each state (`draft → live ⇄ paused → closed`); None is illegal.

A move that leads to where the drive already stands is a repeat, and silent.
"""


def next_state(state: DriveState, transition: DriveTransition) -> DriveState:
    """Where `transition` leads from `state`; raises `IllegalTransition`."""
    after = TRANSITIONS[state][transition]
    if after is None:
        raise IllegalTransition(f"A drive that is {state.value} cannot {transition.value}.")
    return after


_TEXT_FIELDS: Final = frozenset({"title", "description", "beneficiaries", "permit", "impact"})
_FIELDS_UNTIL_CLOSED: Final = _TEXT_FIELDS | {"goal", "ends_at", "milestones", "menu", "partners"}
CHANGEABLE_FIELDS: Final[Mapping[DriveState, frozenset[str]]] = {
    DRAFT: _FIELDS_UNTIL_CLOSED | {"slug", "starts_at", "zakat_eligible", "test"},
    LIVE: _FIELDS_UNTIL_CLOSED,
    PAUSED: _FIELDS_UNTIL_CLOSED,
    CLOSED: _TEXT_FIELDS,
}
"""Which of a drive's fields may change in each state.

The currency never does: whoever counts takes it from the first word of a drive. Once a drive was
live its address is on people's screens, and what a gift was given under (zakat, test) stays.
"""


class FieldImmutable(Conflict):
    slug, title = "drive-field-fixed", "This can no longer be changed"


def check_changes(state: DriveState, fields: Iterable[str]) -> None:
    """Raises `FieldImmutable` where a drive in `state` may not change one of `fields`."""
    immutable = sorted(set(fields) - CHANGEABLE_FIELDS[state])
    if immutable:
        detail = f"fixed in a drive that is {state.value}"
        raise FieldImmutable(
            f"A drive that is {state.value} keeps its {', '.join(immutable)}.",
            errors=[{"pointer": f"/{name}", "detail": detail} for name in immutable],
        )


def check_accepts_pledges(state: str) -> None:
    """Raises `DriveClosed` or `DrivePaused` where a drive in `state` takes no pledge."""
    if state == PAUSED:
        raise DrivePaused("It goes on later.")
    if state != LIVE:
        raise DriveClosed("It is not open yet." if state == DRAFT else "It is over.")


def check_test_mode(test: bool, moves_real_money: bool) -> None:
    """Raises `RealMoneyOnTestDrive` where a pledge to a test drive would charge a real card."""
    if test and moves_real_money:
        raise RealMoneyOnTestDrive("Stripe's key is a live one: use a test key or the sandbox.")


class PartnerNotAllowed(Forbidden):
    slug, title = "partner-not-admitted", "This drive takes no pledges from this partner"


def check_partner_allowed(partner: str, owner: str, partners: Collection[str] | None) -> None:
    """Raises `PartnerNotAllowed` where `partner` may not pledge to a drive of `owner`.

    `partners` is the drive's list of partners who may pledge besides its owner; None is any.
    """
    if partners is not None and partner != owner and partner not in partners:
        raise PartnerNotAllowed("The drive names the partners who may pledge to it.")


_UNPAID: Final = frozenset({PledgeStatus.OPEN, PledgeStatus.LAPSED})


def current_status(payments: Iterable[PaymentStatus], *, cancelled: bool) -> PledgeStatus:
    """What a pledge is; one that was `cancelled` stays so until money comes all the same."""
    status = pledge_status(payments)
    return PledgeStatus.CANCELLED if cancelled and status in _UNPAID else status


class PledgeNotOpen(Conflict):
    slug, title = "pledge-not-open", "Only a pledge that is open and unpaid can be cancelled"


def check_cancellable(status: PledgeStatus) -> bool:
    """Whether cancelling changes a pledge in `status`; a repeat does not. Raises `PledgeNotOpen`."""
    if status not in (PledgeStatus.OPEN, PledgeStatus.CANCELLED):
        raise PledgeNotOpen(f"It is {status.value}.")
    return status is PledgeStatus.OPEN


# Amounts: the limits themselves are `backbone.stripe_amounts`'s.

_STRIPE_CURRENCIES: Final = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF
CHF CLP CNY COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL
HTG HUF IDR ILS INR ISK JMD JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MKD
MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON
RSD RUB RWF SAR SBD SCR SEK SGD SHP SLE SOS SRD STN SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX USD
UYU UZS VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW
"""
SUPPORTED_CURRENCIES: Final = frozenset(_STRIPE_CURRENCIES.split()) & frozenset(DIGITS)
"""Currencies a drive may have. Stripe counts MGA without the two digits ISO gives it: left out."""


def check_amount(amount: Money, currency: str) -> None:
    """Raises `Invalid`, `AmountTooSmall` or `AmountTooLarge` where no drive in `currency` takes `amount`."""
    if amount.currency != currency:
        raise _invalid_field("/amount/currency", f"this drive takes {currency}")
    try:
        check_chargeable(amount)
    except ProblemValueError as error:
        raise error.problem([{"pointer": "/amount/value", "detail": str(error)}]) from None
    except ValueError as error:
        raise _invalid_field("/amount/value", str(error)) from None


def check_chargeable(amount: Money) -> None:
    """Raises ValueError for an amount that the processor does not take; larger gifts come offline.

    Its subclasses `AmountTooSmallError` and `AmountTooLargeError` have problem types of their own.
    """
    currency = amount.currency
    if amount.minor_units < smallest(currency):
        raise AmountTooSmallError(f"at least {Money(smallest(currency), currency)}")
    if amount.minor_units > largest(currency):
        raise AmountTooLargeError(f"at most {Money(largest(currency), currency)} at once")
    if amount.minor_units % step(currency):
        raise ValueError(f"must be a multiple of {Money(step(currency), currency)}")


def _invalid_field(pointer: str, detail: str) -> Invalid:
    return Invalid("Some fields do not fit.", errors=[{"pointer": pointer, "detail": detail}])


def unknown_creator() -> Invalid:
    """The problem of a pledge that credits nobody the drive knows."""
    return _invalid_field("/creator", "no such creator in this drive (ids and slugs are in lower case)")


# What only this service can make: tokens and donors known again.


class PledgeSecrets:
    """Makes pledges' tokens and donors' marks out of one secret, kept apart by their purpose."""

    def __init__(self, secret: str) -> None:
        self._tokens = _derive_key(secret, b"ataa.pledge-token.v1")
        self._addresses = _derive_key(secret, b"ataa.donor-address.v1")

    def token(self, pledge_id: str) -> str:
        """The token that reads this pledge and nothing else: 32 characters of base64url."""
        mac = hmac.digest(self._tokens, pledge_id.encode(), "sha256")
        return base64.urlsafe_b64encode(mac[:24]).decode()

    def address_mac(self, partner: str, email: str) -> bytes:
        """What tells a partner's donors apart without keeping their addresses in the clear."""
        text = f"{partner}\n{normalized_email(email)}"
        return hmac.digest(self._addresses, text.encode(), "sha256")


@lru_cache(maxsize=8)
def _derive_key(secret: str, purpose: bytes) -> bytes:
    return hmac.digest(secret.encode(), purpose, hashlib.sha256)


def normalized_email(email: str) -> str:
    """One spelling an address: providers do not tell letters' case apart."""
    return email.strip().casefold()


def localized(texts: str | Mapping[str, str], locale: str | None) -> str:
    """The text in the reader's language, else in English, else in the first there is."""
    if isinstance(texts, str):
        return texts
    for language in (locale or "", (locale or "").partition("-")[0].lower(), "en"):
        if language in texts:
            return texts[language]
    return next(iter(texts.values()))
