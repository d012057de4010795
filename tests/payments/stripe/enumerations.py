"""Every value Stripe publishes for what payments reads, and what it means here.

From Stripe's OpenAPI, version 2026-08-26.dahlia (`embedded/openapi/spec3.json` of
github.com/stripe/stripe-mock v0.203.0; published at github.com/stripe/openapi), by schema and field. A
field whose schema says `nullable` has None among its values. `refund.status` has no closed list
there: its values are those of its description.
"""

from __future__ import annotations

from typing import Final

INVENTED: Final = "a_value_stripe_adds_next_year"

REFUND_STATUS: Final[dict[str | None, int]] = {
    "pending": 700,
    "requires_action": 700,
    "succeeded": 700,
    "failed": 0,
    "canceled": 0,
    None: 700,
    INVENTED: 700,
}
"""schemas.refund.status, and the counted amount of a refund of 7.00."""

DISPUTE_STATUS: Final[dict[str, int]] = {
    "lost": 700,
    "needs_response": 700,
    "prevented": 700,
    "under_review": 700,
    "warning_closed": 0,
    "warning_needs_response": 0,
    "warning_under_review": 0,
    "won": 0,
    "charge_refunded": 700,
    INVENTED: 700,
}
"""schemas.dispute.status, and the counted amount of a dispute of 7.00 without balance transactions.

`charge_refunded` is a status of old API versions, which an endpoint may still be pinned to.
"""

CASE_TYPE: Final[dict[str | None, int]] = {
    "block": 0,
    "chargeback": 700,
    "compliance": 700,
    "inquiry": 0,
    "resolution": 700,
    None: 700,
    INVENTED: 700,
}
"""schemas.dispute_payment_method_details_card.case_type, and what counts of 7.00 prevented. Only `block`
and `resolution` are prevented, says docs.stripe.com/changelog/basil/2025-08-27/add-preventions-to-dispute.
None: the dispute has no card details (they are optional)."""

DISPUTE_IN_DOUBT: Final = {"prevented", "charge_refunded", INVENTED}
CASE_IN_DOUBT: Final = {"chargeback", "compliance", None, INVENTED}

PAYMENT_INTENT_STATUS: Final[dict[str, bool]] = {
    "canceled": False,
    "processing": False,
    "requires_action": False,
    "requires_capture": False,
    "requires_confirmation": False,
    "requires_payment_method": False,
    "succeeded": True,
    INVENTED: False,
}
"""schemas.payment_intent.status, and whether money was captured."""

SESSION_STATUS: Final[tuple[str | None, ...]] = ("complete", "expired", "open", None, INVENTED)
"""schemas["checkout.session"].status: the event's type decides, not the status."""

SESSION_PAYMENT_STATUS: Final[dict[str, bool]] = {
    "no_payment_required": False,
    "paid": True,
    "unpaid": False,
    INVENTED: False,
}
"""schemas["checkout.session"].payment_status, and whether it reports a capture."""

SESSION_MODE: Final[tuple[str, ...]] = ("payment", "setup", "subscription", INVENTED)
"""schemas["checkout.session"].mode."""

SESSION_NULLABLE: Final[tuple[str, ...]] = (
    "amount_total", "client_reference_id", "currency", "metadata", "payment_intent", "payment_link", "status"
)  # fmt: skip
"""Fields of schemas["checkout.session"] that payments reads and Stripe may leave null."""
