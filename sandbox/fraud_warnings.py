"""Early fraud warnings, made by a control (https://docs.stripe.com/api/radar/early_fraud_warnings)."""

from __future__ import annotations

from sandbox.account import Account
from sandbox.errors import invalid_state
from sandbox.events import Subject
from sandbox.records import Json, new_id


def warn(account: Account, payment_id: str) -> Json:
    """Emit a warning about a captured payment; it is not stored. Raises ApiError for an unpaid payment."""
    payment = account.payment(payment_id, "payment_intent")
    if not payment.captured:
        raise invalid_state(f"PaymentIntent {payment.id} is not paid.", "payment_intent_unexpected_state")
    warning: Json = {
        "id": new_id("issfr_"),
        "object": "radar.early_fraud_warning",
        "actionable": account.dispute_of(payment.id) is None and account.refundable(payment) > 0,
        "charge": payment.charge,
        "created": int(account.clock()),
        "fraud_type": "unauthorized_use_of_card",
        "livemode": False,
        "payment_intent": payment.id,
    }
    account.events.emit("radar.early_fraud_warning.created", Subject.of(payment), warning)
    return warning
