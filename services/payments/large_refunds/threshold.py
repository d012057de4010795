"""From which amount on a refund needs a second key. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backbone.exchange_rates import converted_up
from backbone.money import MoneyError, digits
from services.payments.recording.rows import PaymentRow


@dataclass(frozen=True, slots=True)
class Threshold:
    """What one payment may give back in all with one key; `above` None: any amount.

    `above` is in whole units of the currency of the payment's drive.
    """

    above: int | None

    def is_passed(self, payment: PaymentRow, units: int) -> bool:
        """Whether `units` minor units of a payment are more than one key may give back.

        They are converted at the payment's frozen rate; without a rate, its own currency is taken. An amount
        that cannot be measured is more.
        """
        if self.above is None:
            return False
        source = payment.paid_currency or ""
        try:
            if payment.rate is None or payment.reporting_currency is None:
                return units > _minor_units(self.above, source)
            target = payment.reporting_currency
            return converted_up(units, source, target, payment.rate) > _minor_units(self.above, target)
        except MoneyError:
            return True


def _minor_units(whole: int, currency: str) -> int:
    return whole * int(10 ** digits(currency))


NO_THRESHOLD: Final = Threshold(None)
