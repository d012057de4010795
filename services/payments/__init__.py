"""What was paid: Stripe's checkouts and webhooks, facts about each payment, refunds, the ledger.

Owns: payments and their tickets, attempts to open checkouts, the webhook store, facts, refunds
asked for, postings.
Hears: `pledges` (a pledge's amount and attribution, a drive's currency).
Says: `payments` (`payment_changed`, absolute state with a version).
"""
