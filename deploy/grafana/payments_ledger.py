"""The Grafana dashboard about payments and the ledger; `make dashboards` writes it.

It shows what a treasurer asks: is money captured and how much declined, what was returned, what waits for a
person, what Stripe charged and paid out, what sponsors can still give, and whether the books agree.
"""

from __future__ import annotations

from typing import Final

from panels import MINOR, Chart, Page, Row, rate

CAPTURED: Final = rate("ataa_payments_total", 'status="captured"')
DECLINED: Final = rate("ataa_card_tries_total", 'outcome="declined"')
ATTEMPTS: Final = f"({CAPTURED} + ({DECLINED} or vector(0)))"


def balance(account: str, sign: str = "") -> str:
    """The balance of an account and its zakat, in units of its currency; `sign` "-" if it is credited."""
    of_each = f'{sign}ataa_ledger_balance_minor_units{{account=~"{account}(_zakat)?"}}'
    return f"sum by (currency) (max by (account, currency) ({of_each})) / {MINOR}"


def money(metric: str) -> str:
    """A gauge of minor units in units of its currency."""
    return f"max by (currency) ({metric}) / {MINOR}"


_ROWS: Final = (
    Row(
        "At a glance",
        (
            Chart(
                "Ledger drift", "short",
                {"{{currency}}": "max by (currency) (abs(ataa_ledger_drift_minor_units))"},
                "Minor units; must be 0. Otherwise follow the runbook of AtaaLedgerDrift.",
                red_at=1, width=4, stat=True,
            ),
            Chart(
                "Audit differences", "short", {"found": "max(ataa_audit_differences) or vector(0)"},
                "Of the newest audit of each drive; must be 0. Otherwise run python -m ataa audit.",
                red_at=1, width=4, stat=True,
            ),
            Chart(
                "Payments held", "short", {"held": "sum(max by (reason) (ataa_held_payments))"},
                "Captured money that counts nowhere until a person releases or refunds it.",
                red_at=1, width=4, stat=True,
            ),
            Chart(
                "Disputes open", "short", {"open": "max(ataa_disputes_open)"},
                "Stripe decides them, with our evidence or without.", width=4, stat=True,
            ),
            Chart(
                "Payouts that differ", "short", {"payouts": "max(ataa_payouts_different)"},
                "Payouts whose lines do not add up to their amount; must be 0.",
                red_at=1, width=4, stat=True,
            ),
            Chart(
                "Expected wait for a checkout", "s", {"wait": "max(ataa_checkouts_eta_seconds)"},
                "Of a new pledge, at the present rate of calls to Stripe.", red_at=60, width=4, stat=True,
            ),
        ),
    ),
    Row(
        "Payments",
        (
            Chart(
                "Authorised and declined", "percentunit",
                {"authorised": f"{CAPTURED} / {ATTEMPTS}",
                 "declined": f"({DECLINED} or vector(0)) / {ATTEMPTS}"},
                "Shares of card attempts. Many declined: card testing, or a problem at Stripe.", decimals=1,
                width=5,
            ),
            Chart(
                "Card attempts", "ops",
                {"authorised": CAPTURED, "declined": f"{DECLINED} or vector(0)"},
                "Per second. A burst of declined ones is card testing: see AtaaCardTesting.", width=5,
            ),
            Chart(
                "Declined cards by reason", "ops",
                {"{{reason}}": rate("ataa_card_declines_total", by="reason")},
                "Stripe's decline codes, per second. Card testing has many incorrect numbers and codes.",
                width=5,
            ),
            Chart(
                "Card-testing breakers", "short", {"open": "max(ataa_card_testing_breakers_open)"},
                "Open breakers, of drives and of all. See the runbook of AtaaCardTesting.",
                red_at=1, width=4,
            ),
            Chart(
                "Payments by status", "ops", {"{{status}}": rate("ataa_payments_total", by="status")},
                "Payments that entered a status, per second.", width=5,
            ),
        ),
    ),
    Row(
        "Checkout queue",
        (
            Chart(
                "Tickets waiting", "short", {"waiting": "max(ataa_checkouts_waiting)"},
                "Pledges without a checkout so far. May rise in a burst, and must fall afterwards.",
                width=6,
            ),
            Chart(
                "Wait for a checkout", "s",
                {"expected": "max(ataa_checkouts_eta_seconds)",
                 "first ticket": "max(ataa_checkouts_oldest_waiting_seconds)"},
                "Expected wait of a new pledge, and age of the first ticket. Where only the second rises, "
                "the queue does not move.",
                red_at=120, width=6,
            ),
            Chart(
                "Checkouts", "ops",
                {"{{outcome}}": rate("ataa_checkouts_total", by="outcome"),
                 "Payment Link": rate("ataa_overflow_checkouts_total")},
                "Checkouts opened per second, by outcome, and pledges given a Payment Link instead.", width=6,
            ),
            Chart(
                "Checkouts paused", "short", {"paused": "max(ataa_checkouts_paused)"},
                "1 while an admin has paused checkouts. POST /v1/checkouts/resume ends it.",
                red_at=1, width=6,
            ),
        ),
    ),
    Row(
        "Refunds and disputes",
        (
            Chart(
                "Returned", "short",
                {"refunds {{currency}}": balance("refunds"), "disputes {{currency}}": balance("disputes")},
                "Refunded and disputed so far, of money that counts, in units of the currency.",
            ),
            Chart(
                "Refunds owed", "short",
                {"refunds": "max(ataa_refunds_owed)"},
                "Refunds of our API that Stripe has not accepted or not completed.",
            ),
            Chart(
                "Age of the oldest refund owed", "s", {"age": "max(ataa_refunds_oldest_owed_seconds)"},
                "A bank takes up to ten days. Older ones: see the refund at Stripe.", red_at=864_000,
            ),
            Chart(
                "Refunds that wait for a second key", "short", {"refunds": "max(ataa_refunds_to_decide)"},
                "Past ATAA_REFUND_APPROVAL_ABOVE; /console/refunds lists them. Nothing is sent meanwhile.",
            ),
            Chart(
                "Disputes", "short",
                {"open": "max(ataa_disputes_open)",
                 "evidence due": "max(ataa_disputes_without_evidence)",
                 "estimates": "sum(max by (why) (ataa_facts_in_doubt))"},
                "Open ones, those that wait for our evidence, and refunds and disputes counted with an "
                "estimate.",
            ),
            Chart(
                "Time until evidence is due", "s", {"next": "min(ataa_dispute_deadline_seconds)"},
                "Of the next dispute; nothing where none waits for evidence. Submit it at Stripe.",
            ),
            Chart(
                "Fraud warnings", "short",
                {"per hour": "sum(increase(ataa_early_fraud_warnings_total[1h]))"},
                "Payments that a card issuer warned of. A refund now is cheaper than the dispute later.",
            ),
        ),
    ),
    Row(
        "Held money",
        (
            Chart(
                "Held payments", "short", {"{{reason}}": "max by (reason) (ataa_held_payments)"},
                "By reason. GET /v1/payments?held=true lists them; a person releases or refunds each.",
            ),
            Chart(
                "Held money", "short", {"{{currency}}": f"({money('ataa_held_minor_units')}) or vector(0)"},
                "In units of the currency. It is in the ledger and in no total.",
            ),
            Chart(
                "Longest held", "s", {"age": "max(ataa_held_oldest_seconds)"},
                "How long a payment has been held at most.", red_at=172_800,
            ),
        ),
    ),
    Row(
        "Fees and payouts",
        (
            Chart(
                "Fees and payouts", "short",
                {"fees {{currency}}": balance("processor_fees"), "paid out {{currency}}": balance("bank"),
                 "at Stripe {{currency}}": balance("processor_clearing")},
                "Balances of the ledger in units of the currency: charged by Stripe, paid out to the bank, "
                "still at Stripe. Read once a minute or less often.",
                width=12,
            ),
            Chart(
                "Payouts", "short",
                {"not compared": "max(ataa_payouts_not_compared)",
                 "different": "max(ataa_payouts_different)"},
                "Payouts whose lines are not compared yet, and those that differ from them.", width=12,
            ),
            Chart(
                "Difference of payouts", "short",
                {"{{currency}}": f"({money('ataa_payouts_difference_minor_units')}) or vector(0)"},
                "In units of the currency; must be 0. GET /v1/payouts names them.", red_at=0.001,
            ),
            Chart(
                "Balance transactions", "ops",
                {"read": rate("ataa_settlement_transactions_total"),
                 "unreadable": rate("ataa_settlement_unreadable_total"),
                 "held": "max(ataa_settlement_held)"},
                "Read per second, unreadable per second, and how many are not posted.",
            ),
            Chart(
                "Settlement last read", "s", {"age": "time() - max(ataa_settlement_timestamp_seconds)"},
                "Since Stripe's balance transactions and payouts were last read.", red_at=3_600,
            ),
        ),
    ),
    Row(
        "Matching",
        (
            Chart(
                "Matching left", "short",
                {"{{currency}}": f"({money('ataa_matching_left_minor_units')}) or vector(0)"},
                "What open pools of live drives can still give, in units of the currency.",
            ),
            Chart(
                "Least left of a pool", "percentunit", {"left": "min(ataa_matching_least_left_ratio)"},
                "Share left of the open pool that is nearest to its cap; 1 without a pool.",
            ),
            Chart(
                "Matched", "short",
                {"{{currency}}": f"({balance('matching_receivable')}) or vector(0)"},
                "What sponsors owe so far, in units of the currency.",
            ),
        ),
    ),
    Row(
        "Books",
        (
            Chart(
                "Ledger drift", "short",
                {"{{currency}}": "max by (currency) (ataa_ledger_drift_minor_units)"},
                "Payments less ledger, in minor units. Must be 0.", red_at=1,
            ),
            Chart(
                "Audits", "s",
                {"ledger": "time() - max(ataa_ledger_audited_timestamp_seconds)",
                 "running drives": "time() - max(ataa_audit_timestamp_seconds)"},
                "Since the ledger was compared with the payments, and since all running drives were audited.",
                red_at=3_600,
            ),
            Chart(
                "Balances", "short", {
                    "raised {{currency}}": balance("drive_raised", "-"),
                    "offline {{currency}}": f"({balance('offline_clearing')}) or vector(0)",
                    "disbursed {{currency}}": f"({balance('disbursed', '-')}) or vector(0)",
                },
                "Raised with offline and matched money, offline, and paid to beneficiaries, in units of the "
                "currency.",
            ),
        ),
    ),
)  # fmt: skip

PAGE: Final = Page(
    "payments-ledger",
    "Ataa: payments and ledger",
    "Authorised, declined, returned, held, paid out and matched money, and whether the books agree.",
    _ROWS,
    "now-6h",
)

if __name__ == "__main__":
    PAGE.write()
