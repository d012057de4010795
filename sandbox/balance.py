"""Balance transactions: every movement of the account's balance (https://docs.stripe.com/api/balance_transactions).

A charge costs `currencies.fee`, which a refund does not return. The first withdrawal of a dispute costs
`DISPUTE_FEE`, which is returned with the whole of what the dispute withdrew. Money is available at once.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sandbox import forms
from sandbox.account import Account
from sandbox.api_call import ApiCall
from sandbox.errors import not_found
from sandbox.listing import Clause, page_of
from sandbox.records import Dispute, Json, Payment, Refund
from sandbox.stripe_objects import page_object

DISPUTE_FEE: Final = 1_500
"""In Stripe's minor units, in every currency."""

INSERT: Final = (
    "INSERT INTO balance_transactions (id, created, type, category, source, payment, amount, fee, currency,"
    " description, payout) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
FEE_NAMES: Final = {"charge": "Stripe processing fees", "adjustment": "Dispute fee"}


class BalanceTransaction(NamedTuple):
    """One movement; `amount` without `fee`, both in Stripe's minor units, negative where money leaves.

    `payout` is the payout that paid it out; None while it is in the balance.
    """

    n: int
    id: str
    created: int
    type: str
    category: str
    source: str
    payment: str | None
    amount: int
    fee: int
    currency: str
    description: str | None
    payout: str | None


def charge_captured(account: Account, payment: Payment) -> None:
    """A captured charge, less its fee."""
    key = charge_transaction(payment)
    _add(account, key, "charge", "charge", payment.charge, payment, payment.amount, payment.fee)


def refund_made(account: Account, refund: Refund, payment: Payment) -> None:
    """A refund leaves the balance when it is created; the charge's fee is kept."""
    _add(account, refund_transaction(refund), "refund", "refund", refund.id, payment, -refund.amount, 0)


def refund_failed(account: Account, refund: Refund, payment: Payment) -> None:
    """A failed refund's amount returns to the balance."""
    key = failure_transaction(refund)
    _add(account, key, "refund_failure", "refund_failure", refund.id, payment, refund.amount, 0)


def dispute_moved(account: Account, dispute: Dispute, payment: Payment) -> None:
    """The last of a dispute's movements, with its fee or the return of it."""
    amount, place = dispute.moved[-1], len(dispute.moved) - 1
    charged = sum(line.fee for line in transactions_of(account, dispute.id))
    fee = DISPUTE_FEE if amount < 0 and not charged else 0
    if amount > 0 and dispute.withdrawn == 0:
        fee = -charged
    category = "dispute" if amount < 0 else "dispute_reversal"
    text = f"Chargeback {'withdrawal' if amount < 0 else 'reversal'} for {dispute.id}"
    key = f"txn_{dispute.id[3:]}{place}"
    _add(account, key, "adjustment", category, dispute.id, payment, amount, fee, text)


def charge_transaction(payment: Payment) -> str:
    """The id of a captured charge's balance transaction."""
    return "txn_" + payment.id[3:]


def refund_transaction(refund: Refund) -> str:
    """The id of a refund's balance transaction."""
    return "txn_" + refund.id[3:]


def failure_transaction(refund: Refund) -> str:
    """The id of the balance transaction that a refund's failure makes."""
    return f"txn_{refund.id[3:]}f"


def _add(
    account: Account,
    key: str,
    kind: str,
    category: str,
    source: str,
    payment: Payment,
    amount: int,
    fee: int,
    description: str | None = None,
) -> None:
    values = (key, int(account.clock()), kind, category, source, payment.id, amount, fee)
    account.journal.write(INSERT, (*values, payment.currency, description, None))


def transactions_of(account: Account, source: str) -> list[BalanceTransaction]:
    """The movements that a charge, refund, dispute or payout made, oldest first."""
    rows = account.journal.rows("SELECT * FROM balance_transactions WHERE source = ? ORDER BY n", (source,))
    return [BalanceTransaction._make(row) for row in rows]


def shown_of(account: Account, source: str) -> list[Json]:
    """The same as Stripe shows them."""
    return [balance_transaction_object(line) for line in transactions_of(account, source)]


def balance_transaction_object(line: BalanceTransaction) -> Json:
    """A balance transaction."""
    currency = line.currency.lower()
    name = FEE_NAMES.get(line.type, "Fee")
    detail = {"amount": line.fee, "application": None, "currency": currency, "description": name}
    return {
        "id": line.id,
        "object": "balance_transaction",
        "amount": line.amount,
        "available_on": line.created,
        "balance_type": "payments",
        "created": line.created,
        "currency": currency,
        "description": line.description,
        "exchange_rate": None,
        "fee": line.fee,
        "fee_details": [detail | {"type": "stripe_fee"}] if line.fee else [],
        "net": line.amount - line.fee,
        "reporting_category": line.category,
        "source": line.source,
        "status": "available",
        "type": line.type,
    }


def retrieve_balance_transaction(account: Account, call: ApiCall) -> Json:
    """Retrieve a balance transaction by id. Raises ApiError (404)."""
    row = account.journal.row("SELECT * FROM balance_transactions WHERE id = ?", (call.target,))
    if row is None:
        raise not_found("balance_transaction", call.target)
    return balance_transaction_object(BalanceTransaction._make(row))


def list_balance_transactions(account: Account, call: ApiCall) -> Json:
    """List balance transactions, newest first; filters: payout, source, type, currency, created.

    A payout's list contains its own transaction besides what it paid out, as Stripe's does.
    """
    clauses: list[Clause] = []
    for name in ("payout", "source", "type"):
        if (value := forms.text(call.params, name)) is not None:
            clauses.append((f"{name} = ?", (value,)))
    if (currency := forms.text(call.params, "currency")) is not None:
        clauses.append(("currency = ?", (currency.upper(),)))
    rows, more = page_of(account, "balance_transactions", call.params, clauses)
    data: list[Any] = [balance_transaction_object(BalanceTransaction._make(row)) for row in rows]
    return page_object(data, more, "/v1/balance_transactions")
