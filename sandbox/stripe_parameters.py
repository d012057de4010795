"""The parameter names that Stripe accepts, so that a misspelt one is refused as Stripe refuses it.

Taken from stripe-python 16.1.0. Parameters without effect on a donation are accepted and ignored.
"""

from __future__ import annotations

from typing import Any, Final

from sandbox.errors import invalid

# fmt: off
SESSION: Final = frozenset({
    "adaptive_pricing", "after_expiration", "allow_promotion_codes", "allowed_payment_method_types",
    "automatic_tax", "billing_address_collection", "branding_settings", "cancel_url",
    "client_reference_id", "consent_collection", "currency", "custom_fields", "custom_text", "customer",
    "customer_account", "customer_creation", "customer_email", "customer_update", "discounts",
    "excluded_payment_method_types", "expand", "expires_at", "integration_identifier", "invoice_creation",
    "line_items", "locale", "managed_payments", "metadata", "mode", "name_collection", "optional_items",
    "origin_context", "payment_intent_data", "payment_method_collection", "payment_method_configuration",
    "payment_method_data", "payment_method_options", "permissions",
    "phone_number_collection", "redirect_on_completion", "return_url", "saved_payment_method_options",
    "setup_intent_data", "shipping_address_collection", "shipping_options", "submit_type",
    "subscription_data", "success_url", "tax_id_collection", "ui_mode", "wallet_options",
})
REFUND: Final = frozenset({
    "amount", "charge", "currency", "customer", "expand", "instructions_email", "metadata", "origin",
    "payment_intent", "reason", "refund_application_fee", "reverse_transfer",
})
LINK: Final = frozenset({
    "after_completion", "allow_promotion_codes", "application_fee_amount", "application_fee_percent",
    "automatic_tax", "billing_address_collection", "consent_collection", "currency", "custom_fields",
    "custom_text", "customer_creation", "expand", "inactive_message", "invoice_creation", "line_items",
    "managed_payments", "metadata", "name_collection", "on_behalf_of", "optional_items",
    "payment_intent_data", "payment_method_collection", "payment_method_options", "payment_method_types",
    "phone_number_collection", "restrictions", "shipping_address_collection", "shipping_options",
    "submit_type", "subscription_data", "tax_id_collection", "transfer_data",
})
LINK_UPDATE: Final = LINK - {"currency", "managed_payments"} | {"active"}
# fmt: on


def refuse_unknown(params: dict[str, Any], known: frozenset[str]) -> None:
    """Raises ApiError (400) for a parameter that is not in `known`."""
    unknown = params.keys() - known
    if unknown:
        name = min(unknown)
        raise invalid(f"Received unknown parameter: {name[:80]}", name[:80], "parameter_unknown")
