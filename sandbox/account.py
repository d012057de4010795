"""The simulated Stripe account: its journal, event log and addresses. Every operation receives it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.errors import not_found
from sandbox.events import EventLog
from sandbox.journal import Journal
from sandbox.records import Dispute, Payment, PaymentLink, Refund, Session


@dataclass(slots=True)
class Account:
    """The state that operations work on.

    `base_url` is the address of the payment pages, without a trailing slash; events go to `webhook_url`.
    """

    journal: Journal
    events: EventLog
    base_url: str
    clock: Callable[[], float] = field(default=time.time)
    webhook_url: str = ""

    def session(self, session_id: str, param: str = "id") -> Session:
        """Raises ApiError (404) when it does not exist."""
        row = self.journal.row("SELECT * FROM sessions WHERE id = ?", (session_id,))
        if row is None:
            raise not_found("checkout.session", session_id, param)
        return Session.from_row(row)

    def payment_link(self, link_id: str) -> PaymentLink:
        """Raises ApiError (404) when it does not exist."""
        row = self.journal.row("SELECT * FROM payment_links WHERE id = ?", (link_id,))
        if row is None:
            raise not_found("payment_link", link_id)
        return PaymentLink.from_row(row)

    def payment(self, payment_id: str, param: str = "intent") -> Payment:
        """Raises ApiError (404) when it does not exist."""
        row = self.journal.row("SELECT * FROM payments WHERE id = ?", (payment_id,))
        if row is None:
            raise not_found("payment_intent", payment_id, param)
        return Payment.from_row(row)

    def charged_payment(self, charge_id: str, param: str = "id") -> Payment:
        """The captured payment of a charge. Raises ApiError (404) when it does not exist."""
        row = self.journal.row("SELECT * FROM payments WHERE id = ?", ("pi_" + charge_id[3:],))
        payment = Payment.from_row(row) if row and charge_id.startswith("ch_") else None
        if payment is None or not payment.captured:
            raise not_found("charge", charge_id, param)
        return payment

    def refunds_of(self, payment_id: str) -> list[Refund]:
        """All refunds of a payment, newest first."""
        rows = self.journal.rows("SELECT * FROM refunds WHERE payment = ? ORDER BY n DESC", (payment_id,))
        return [Refund.from_row(row) for row in rows]

    def dispute_of(self, payment_id: str) -> Dispute | None:
        row = self.journal.row("SELECT * FROM disputes WHERE payment = ?", (payment_id,))
        return Dispute.from_row(row) if row else None

    def refundable(self, payment: Payment) -> int:
        """The part of a charge not yet refunded, in minor units; failed refunds do not count."""
        kept = (refund.amount for refund in self.refunds_of(payment.id) if refund.status != "failed")
        return payment.amount - sum(kept)

    def schedule(self, action: str, target: str, delay_s: float) -> None:
        """Schedule an action (a key of `schedule.ACTIONS`) for later; it survives a restart."""
        due = self.clock() + delay_s
        self.journal.write("INSERT INTO plans (due, deed, target) VALUES (?, ?, ?)", (due, action, target))
