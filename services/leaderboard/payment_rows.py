"""The log rows of a payment's change, also where it was given in another currency than the drive's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from backbone.contracts import PaymentChanged
from backbone.contracts.leaderboard import LogType
from backbone.exchange_rates import converted
from backbone.money import Money
from services.leaderboard.domain import NOTHING, Figures, changes, reported_changes
from services.leaderboard.sequencer import NOT_GIVEN


def reported_by(event: PaymentChanged) -> Figures | None:
    """The amounts in the drive's currency, where they are in another one."""
    sums = (event.reporting_captured, event.reporting_refunded, event.reporting_disputed)
    captured, refunded, disputed = sums
    if captured is None or refunded is None or disputed is None:
        return None
    return Figures(captured.minor_units, refunded.minor_units, disputed.minor_units)


class GivenChange(NamedTuple):
    """What counts of a payment before and after a change, in the currency of the gift."""

    was: Figures
    now: Figures
    currency: str


def sizes_of(given: GivenChange | None) -> Mapping[LogType, Money]:
    """The sizes of a change in the currency of the gift, by the type of their rows."""
    if given is None:
        return NOT_GIVEN
    return {type_: Money(abs(moved), given.currency) for type_, moved in changes(given.was, given.now)}


def rows_of(
    was: Figures, now: Figures, given: GivenChange | None, rate: str | None, currency: str | None
) -> list[tuple[LogType, int]]:
    """The rows of a change from `was` to `now`, which are in the drive's `currency`.

    Where both are worth what was `given` at `rate`, no row is logged of what did not change there.
    """
    if given is None or rate is None or currency is None or now == NOTHING:
        return changes(was, now)

    def value(net: int) -> int:
        return converted(net, given.currency, currency, rate)

    if (value(given.was.net), value(given.now.net)) != (was.net, now.net):
        return changes(was, now)
    return reported_changes(given.was, given.now, value)
