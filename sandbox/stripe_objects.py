"""Stripe's objects as JSON, built from the sandbox's rows (https://docs.stripe.com/api)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

from sandbox.cards import CARDS, fingerprint_of
from sandbox.records import Dispute, Json, Payment, PaymentLink, Payout, Refund, Session

API_VERSION: Final = "2026-10-28.endive"
COMPLETE: Final = ("complete", "settling", "unsettled")
"""Stored states of a session that Stripe shows as complete: paid, to be settled later, and failed then."""

to_json = json.JSONEncoder(separators=(",", ":")).encode


def session_object(session: Session, base_url: str) -> Json:
    """A Checkout Session. An open one has a `url` (hosted) or a `client_secret` (embedded)."""
    requested = session.requested
    embedded = requested["ui_mode"] == "embedded_page"
    is_open = session.status == "open"
    return {
        "id": session.id,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": requested["adaptive_pricing"]},
        "amount_subtotal": session.amount,
        "amount_total": session.amount,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": requested["cancel_url"],
        "client_reference_id": requested["client_reference_id"],
        "client_secret": f"{session.id}_secret_{session.id[-14:]}" if embedded and is_open else None,
        "created": session.created,
        "currency": session.currency.lower(),
        "custom_fields": [],
        "custom_text": {"after_submit": None, "shipping_address": None, "submit": None},
        "customer": None,
        "customer_creation": "if_required",
        "customer_details": _customer_details(session.donor, requested["customer_email"]),
        "customer_email": requested["customer_email"],
        "expires_at": session.expires_at,
        "invoice": None,
        "livemode": False,
        "locale": requested["locale"],
        "metadata": requested["metadata"],
        "mode": "payment",
        "payment_intent": session.payment,
        "payment_link": requested.get("payment_link"),
        "payment_method_types": ["card", "us_bank_account"],
        "payment_status": "paid" if session.status == "complete" else "unpaid",
        "presentment_details": None,
        "recovered_from": None,
        "return_url": requested["return_url"],
        "shipping_cost": None,
        "shipping_options": [],
        "status": "complete" if session.status in COMPLETE else session.status,
        "submit_type": requested["submit_type"],
        "subscription": None,
        "success_url": requested["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": requested["ui_mode"],
        "url": f"{base_url}/c/pay/{session.id}" if is_open and not embedded else None,
    }


def payment_link_object(link: PaymentLink, base_url: str) -> Json:
    """A Payment Link; its address takes `?client_reference_id=…`."""
    requested = link.requested
    redirect = requested["redirect"]
    after = {"type": "redirect", "redirect": {"url": redirect}} if redirect else {
        "type": "hosted_confirmation", "hosted_confirmation": {"custom_message": None}
    }  # fmt: skip
    return {
        "id": link.id,
        "object": "payment_link",
        "active": link.active,
        "after_completion": after,
        "currency": requested["currency"].lower(),
        "livemode": False,
        "metadata": requested["metadata"],
        "payment_intent_data": {"metadata": requested["intent_metadata"]},
        "payment_method_types": None,
        "restrictions": None,
        "submit_type": requested["submit_type"],
        "url": f"{base_url}/c/link/{link.id}",
    }


def _customer_details(donor: Json | None, email: str | None) -> Json | None:
    if donor is None and email is None:
        return None
    known = donor or {}
    return {
        "address": None,
        "email": known.get("email") or email,
        "name": known.get("name"),
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }


def line_items(session: Session) -> Json:
    """The session's only line, which Stripe shows when it is expanded or listed."""
    requested = session.requested
    currency = session.currency.lower()
    line = {
        "id": f"li_{session.id[8:]}",
        "object": "item",
        "amount_discount": 0,
        "amount_subtotal": session.amount,
        "amount_tax": 0,
        "amount_total": session.amount,
        "currency": currency,
        "description": requested["product"],
        "price": {"object": "price", "currency": currency, "unit_amount": requested["unit_amount"]},
        "quantity": requested["quantity"],
    }
    return page_object([line], False, f"/v1/checkout/sessions/{session.id}/line_items")


def payment_intent_object(payment: Payment, authentication_url: str | None = None) -> Json:
    """A PaymentIntent; `authentication_url` is where its donor has to authenticate."""
    captured = payment.captured
    return {
        "id": payment.id,
        "object": "payment_intent",
        "amount": payment.amount,
        "amount_capturable": 0,
        "amount_received": payment.amount if captured else 0,
        "automatic_payment_methods": None,
        "canceled_at": payment.created if payment.status == "canceled" else None,
        "cancellation_reason": "automatic" if payment.status == "canceled" else None,
        "capture_method": "automatic_async",
        "client_secret": f"{payment.id}_secret_{payment.id[-14:]}",
        "confirmation_method": "automatic",
        "created": payment.created,
        "currency": payment.currency.lower(),
        "customer": None,
        "description": None,
        "last_payment_error": payment.failure,
        "latest_charge": payment.charge if captured else None,
        "livemode": False,
        "metadata": payment.metadata,
        "next_action": _next_action(payment, authentication_url),
        "payment_method": _payment_method(payment) if captured else None,
        "payment_method_types": ["card", "us_bank_account"],
        "processing": None,
        "receipt_email": None,
        "statement_descriptor": None,
        "status": payment.status,
    }


def _next_action(payment: Payment, authentication_url: str | None) -> Json | None:
    if payment.status != "requires_action":
        return None
    redirect = {"return_url": None, "url": authentication_url}
    return {"type": "redirect_to_url", "redirect_to_url": redirect}


def _payment_method(payment: Payment) -> str:
    return "pm_" + payment.id[3:]


def charge_object(payment: Payment, refunds: list[Refund], disputed: bool) -> Json:
    """The captured charge of a payment; `refunds` are all its refunds, newest first."""
    refunded = sum(refund.amount for refund in refunds if refund.status != "failed")
    donor = payment.donor
    return {
        "id": payment.charge,
        "object": "charge",
        "amount": payment.amount,
        "amount_captured": payment.amount,
        "amount_refunded": refunded,
        "balance_transaction": "txn_" + payment.id[3:],
        "billing_details": {"address": None, "email": donor["email"], "name": donor["name"], "phone": None},
        "captured": True,
        "created": payment.created,
        "currency": payment.currency.lower(),
        "customer": None,
        "description": None,
        "disputed": disputed,
        "failure_code": None,
        "failure_message": None,
        "livemode": False,
        "metadata": payment.metadata,
        "outcome": {"network_status": "approved_by_network", "risk_level": "normal", "type": "authorized"},
        "paid": True,
        "payment_intent": payment.id,
        "payment_method": _payment_method(payment),
        "payment_method_details": _method_details(payment.card),
        "receipt_email": None,
        "refunded": refunded == payment.amount,
        "refunds": page_object(
            [refund_object(refund, payment.charge) for refund in refunds[:10]],
            len(refunds) > 10,
            f"/v1/charges/{payment.charge}/refunds",
        ),
        "status": "succeeded",
    }


def _method_details(number: str) -> Json:
    if CARDS[number].method == "card":
        return {"card": _card_details(number), "type": "card"}
    account = {"account_type": "checking", "bank_name": "STRIPE TEST BANK", "last4": number[-4:]}
    return {"type": "us_bank_account", "us_bank_account": account}


@lru_cache(maxsize=64)
def _card_details(number: str) -> Json:
    details: Json = {"brand": CARDS[number].brand, "country": "US", "exp_month": 12, "exp_year": 2034}
    details |= {"fingerprint": fingerprint_of(number), "network": CARDS[number].brand}
    return details | {"funding": "credit", "last4": number[-4:]}


def refund_object(refund: Refund, charge: str) -> Json:
    """A refund."""
    return {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "balance_transaction": "txn_" + refund.id[3:],
        "charge": charge,
        "created": refund.created,
        "currency": refund.currency.lower(),
        "destination_details": {
            "card": {"reference_status": "pending", "reference_type": "acquirer_reference_number"},
            "type": "card",
        },
        "failure_balance_transaction": f"txn_{refund.id[3:]}f" if refund.status == "failed" else None,
        "failure_reason": "unknown" if refund.status == "failed" else None,
        "metadata": refund.metadata,
        "payment_intent": refund.payment,
        "pending_reason": "processing" if refund.status == "pending" else None,
        "reason": refund.reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": refund.status,
        "transfer_reversal": None,
    }


def dispute_object(dispute: Dispute, charge: str, movements: list[Json]) -> Json:
    """A dispute; `movements` are its balance transactions."""
    return {
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount,
        "balance_transactions": movements,
        "charge": charge,
        "created": dispute.created,
        "currency": dispute.currency.lower(),
        "evidence": {},
        "evidence_details": {
            "due_by": dispute.created + 7 * 86_400,
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": not dispute.withdrawn,
        "livemode": False,
        "metadata": {},
        "payment_intent": dispute.payment,
        "payment_method_details": {
            "card": {
                "brand": "visa",
                "case_type": dispute.case_type,
                "network": "visa",
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": "fraudulent",
        "status": dispute.status,
    }


def payout_object(payout: Payout) -> Json:
    """A payout; its balance transactions are complete once it is paid or failed."""
    failed = payout.status == "failed"
    suffix = payout.id[3:]
    return {
        "id": payout.id,
        "object": "payout",
        "amount": payout.amount,
        "arrival_date": payout.created,
        "automatic": True,
        "balance_transaction": f"txn_{suffix}",
        "created": payout.created,
        "currency": payout.currency.lower(),
        "description": "STRIPE PAYOUT",
        "destination": None,
        "failure_balance_transaction": f"txn_{suffix}f" if failed else None,
        "failure_code": "account_closed" if failed else None,
        "failure_message": "The bank account has been closed." if failed else None,
        "livemode": False,
        "metadata": {},
        "method": "standard",
        "original_payout": None,
        "reconciliation_status": "in_progress" if payout.status == "in_transit" else "completed",
        "reversed_by": None,
        "source_type": "card",
        "statement_descriptor": None,
        "status": payout.status,
        "type": "bank_account",
    }


def page_object(data: list[Any], has_more: bool, url: str) -> Json:
    """One page of a list (https://docs.stripe.com/api/pagination)."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}
