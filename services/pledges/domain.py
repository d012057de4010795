"""Rules of drives and pledges: state transitions, the status of a pledge, the amounts that are charged.

No I/O and no HTTP: a broken rule is a `DomainError`, which `services.pledges.problems` translates.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final

from backbone.contracts.payments import PaymentStatus, pledge_status
from backbone.contracts.pledges import DriveState, PledgeStatus
from backbone.exchange_rates import Quote, converted, is_convertible
from backbone.money import Money
from backbone.stripe_amounts import largest, smallest, step

DRAFT, LIVE, PAUSED, CLOSED = DriveState.DRAFT, DriveState.LIVE, DriveState.PAUSED, DriveState.CLOSED


class DomainError(Exception):
    """A request breaks a rule. `detail` says how; `errors` points at fields, as a problem document does."""

    def __init__(self, detail: str, *, errors: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors


class InvalidField(DomainError):
    """A field whose value no request to this drive may have."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__("Some fields are invalid.", errors=[{"pointer": pointer, "detail": detail}])


class CurrencyNotAccepted(DomainError):
    """The drive takes no pledges in this currency."""


class NoExchangeRate(DomainError):
    """The drive takes the currency, and there is no rate of the last seven days."""


class AmountTooSmall(DomainError):
    """The processor charges no amount that small."""


class AmountTooLarge(DomainError):
    """The processor charges no amount that large at once."""


class AmountNotCharged(DomainError):
    """The processor charges no amount with that many digits."""


class DriveClosed(DomainError):
    """The drive is not open, or is closed."""


class DrivePaused(DomainError):
    """The drive is paused."""


class RealMoneyOnTestDrive(DomainError):
    """A pledge to a test drive would charge a real card."""


class SlugTaken(DomainError):
    """The slug belongs to another drive or creator."""


class IllegalTransition(DomainError):
    """The drive's state does not allow the transition."""


class DriveTransition(StrEnum):
    """A command that changes the state of a drive."""

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
"""The next state for each transition in each state (`draft → live ⇄ paused → closed`); None is illegal.

A transition to the state the drive is already in is a repeat and changes nothing.
"""


def next_state(state: DriveState, transition: DriveTransition) -> DriveState:
    """The state after `transition`. Raises `IllegalTransition`."""
    after = TRANSITIONS[state][transition]
    if after is None:
        raise IllegalTransition(f"A drive that is {state.value} cannot {transition.value}.")
    return after


_TEXT_FIELDS: Final = frozenset({"title", "description", "permit", "impact", "moderation"})
_OPENED_FIELDS: Final = frozenset({"goal", "ends_at", "milestones", "menu", "partners", "currencies"})
_FIELDS_UNTIL_CLOSED: Final = _TEXT_FIELDS | _OPENED_FIELDS
CHANGEABLE_FIELDS: Final[Mapping[DriveState, frozenset[str]]] = {
    DRAFT: _FIELDS_UNTIL_CLOSED | {"slug", "starts_at", "zakat_eligible", "beneficiaries", "test"},
    LIVE: _FIELDS_UNTIL_CLOSED,
    PAUSED: _FIELDS_UNTIL_CLOSED,
    CLOSED: _TEXT_FIELDS,
}
"""The fields of a drive that may change in each state.

The currency never may: other services take it from the first event of a drive. Once a drive was live, its
slug is part of addresses on screens, and donations were made under its `zakat_eligible`, `test` and
`beneficiaries`, whose shares of the money are fixed.
"""


class FieldImmutable(DomainError):
    """The drive's state does not allow this field to change."""


def check_changes(state: DriveState, fields: Iterable[str]) -> None:
    """Raises `FieldImmutable` where a drive in `state` may not change one of `fields`."""
    immutable = sorted(set(fields) - CHANGEABLE_FIELDS[state])
    if immutable:
        detail = f"fixed in a drive that is {state.value}"
        raise FieldImmutable(
            f"A drive that is {state.value} keeps its {', '.join(immutable)}.",
            errors=[{"pointer": f"/{name}", "detail": detail} for name in immutable],
        )


def check_currencies(state: DriveState, old: Collection[str], new: Collection[str]) -> None:
    """Raises `FieldImmutable` where a drive that was opened would no longer take one of its currencies.

    Donors who pledged in it may still pay.
    """
    dropped = sorted(set(old) - set(new))
    if dropped and state != DRAFT:
        detail = f"{', '.join(dropped)} cannot be taken away"
        raise FieldImmutable(
            f"A drive that is {state.value} keeps its currencies; more may be added.",
            errors=[{"pointer": "/currencies", "detail": detail}],
        )


def check_accepts_pledges(state: str) -> None:
    """Raises `DriveClosed` or `DrivePaused` where a drive in `state` takes no pledge."""
    if state == PAUSED:
        raise DrivePaused("This drive is paused.")
    if state != LIVE:
        raise DriveClosed("This drive is not open yet." if state == DRAFT else "This drive is closed.")


def check_test_mode(test: bool, moves_real_money: bool) -> None:
    """Raises `RealMoneyOnTestDrive` where a pledge to a test drive would charge a real card."""
    if test and moves_real_money:
        raise RealMoneyOnTestDrive("Stripe's key is a live one: use a test key or the sandbox.")


class PartnerNotAllowed(DomainError):
    """The drive takes no pledges from this partner."""


def check_partner_allowed(partner: str, owner: str, partners: Collection[str] | None) -> None:
    """Raises `PartnerNotAllowed` where `partner` may not pledge to a drive of `owner`.

    `partners` lists the partners who may pledge besides the owner; None allows every partner.
    """
    if partners is not None and partner != owner and partner not in partners:
        raise PartnerNotAllowed("The drive lists the partners who may pledge to it.")


_UNPAID: Final = frozenset({PledgeStatus.OPEN, PledgeStatus.LAPSED})


def current_status(payments: Iterable[PaymentStatus], *, cancelled: bool) -> PledgeStatus:
    """The status of a pledge; a `cancelled` one stays cancelled unless a payment arrives."""
    status = pledge_status(payments)
    return PledgeStatus.CANCELLED if cancelled and status in _UNPAID else status


class PledgeNotOpen(DomainError):
    """The pledge is not open, so it cannot be cancelled."""


def check_cancellable(status: PledgeStatus) -> bool:
    """Whether cancelling changes a pledge in `status`; a repeat does not. Raises `PledgeNotOpen`."""
    if status not in (PledgeStatus.OPEN, PledgeStatus.CANCELLED):
        raise PledgeNotOpen(f"The pledge is {status.value}.")
    return status is PledgeStatus.OPEN


# Amounts; the limits are in `backbone.stripe_amounts`.


def check_amount(amount: Money, currency: str, others: Collection[str] = ()) -> None:
    """Check the amount of a pledge to a drive in `currency` that takes `others` besides.

    Raises `CurrencyNotAccepted`, `InvalidField`, `AmountTooSmall` or `AmountTooLarge`, with the pointer of
    the field.
    """
    if amount.currency != currency and amount.currency not in others:
        detail = f"this drive takes {', '.join((currency, *others))}"
        raise CurrencyNotAccepted(detail, errors=[{"pointer": "/amount/currency", "detail": detail}])
    try:
        check_chargeable(amount)
    except AmountNotCharged as error:
        raise InvalidField("/amount/value", error.detail) from None
    except (AmountTooSmall, AmountTooLarge) as error:
        pointed = {"pointer": "/amount/value", "detail": error.detail}
        raise type(error)(error.detail, errors=[pointed]) from None


def check_minimum(amount: Money, minimums: Mapping[str, int]) -> None:
    """Raises `AmountTooSmall` for an amount below that of its currency, where one is set."""
    least = minimums.get(amount.currency, 0)
    if amount.minor_units < least:
        detail = f"at least {Money(least, amount.currency)}"
        raise AmountTooSmall(detail, errors=[{"pointer": "/amount/value", "detail": detail}])


def check_chargeable(amount: Money) -> None:
    """Raises `AmountTooSmall`, `AmountTooLarge` or `AmountNotCharged` for what the processor does not charge.

    Larger donations are made outside of Ataa.
    """
    currency = amount.currency
    if amount.minor_units < smallest(currency):
        raise AmountTooSmall(f"at least {Money(smallest(currency), currency)}")
    if amount.minor_units > largest(currency):
        raise AmountTooLarge(f"at most {Money(largest(currency), currency)} at once")
    if amount.minor_units % step(currency):
        raise AmountNotCharged(f"must be a multiple of {Money(step(currency), currency)}")


def reporting_amount(amount: Money, currency: str, quote: Quote | None) -> Money | None:
    """What an amount in another currency than its drive's is worth; None for one in the drive's `currency`.

    Raises `NoExchangeRate` without a `quote`, and `AmountTooSmall` or `AmountTooLarge` where it is worth
    nothing, or more than can be counted.
    """
    if amount.currency == currency:
        return None
    if quote is None:
        raise NoExchangeRate(f"There is no exchange rate from {amount.currency} to {currency} now.")
    units = converted(amount.minor_units, amount.currency, currency, quote.rate)
    if is_convertible(amount.minor_units, amount.currency, currency, quote.rate):
        return Money(units, currency)
    kind = AmountTooLarge if units else AmountTooSmall
    detail = f"it is worth {Money(units, currency)}"
    raise kind(detail, errors=[{"pointer": "/amount/value", "detail": detail}])


def check_purpose(purpose: str | None, zakat_eligible: bool) -> None:
    """Raises `InvalidField` for zakat where the drive does not take it; sadaqah may be given to any."""
    if purpose == "zakat" and not zakat_eligible:
        raise InvalidField("/purpose", "this drive is not zakat_eligible")


def unknown_creator() -> InvalidField:
    """The error of a pledge that credits a creator the drive does not have."""
    return InvalidField("/creator", "no such creator in this drive (ids and slugs are in lower case)")


# Derived from the secret: pledge tokens, and donors recognised by their address.


class PledgeSecrets:
    """Derives pledge tokens and address MACs from one secret, with a key for each purpose."""

    def __init__(self, secret: str) -> None:
        self._tokens = _derive_key(secret, b"ataa.pledge-token.v1")
        self._addresses = _derive_key(secret, b"ataa.donor-address.v1")

    def token(self, pledge_id: str) -> str:
        """The token that grants reading this pledge only: 32 characters of base64url."""
        mac = hmac.digest(self._tokens, pledge_id.encode(), "sha256")
        return base64.urlsafe_b64encode(mac[:24]).decode()

    def address_mac(self, partner: str, email: str) -> bytes:
        """Identifies a donor of a partner by address, without storing the address."""
        text = f"{partner}\n{normalized_email(email)}"
        return hmac.digest(self._addresses, text.encode(), "sha256")


@lru_cache(maxsize=8)
def _derive_key(secret: str, purpose: bytes) -> bytes:
    return hmac.digest(secret.encode(), purpose, hashlib.sha256)


def normalized_email(email: str) -> str:
    """The address without surrounding space, case-folded: providers ignore case."""
    return email.strip().casefold()


def localized(texts: str | Mapping[str, str], locale: str | None) -> str:
    """The text in the language of `locale`, else in English, else in the first language given."""
    if isinstance(texts, str):
        return texts
    for language in (locale or "", (locale or "").partition("-")[0].lower(), "en"):
        if language in texts:
            return texts[language]
    return next(iter(texts.values()))
