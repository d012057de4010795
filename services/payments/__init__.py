"""The payments service: Stripe's checkouts and webhooks, facts about each payment, refunds, the ledger.

Owns: payments and their tickets, checkout attempts, stored webhooks, facts, requested refunds, postings.
Consumes: `pledges` (a pledge's amount and attribution, a drive's currency).
Publishes: `payments` (`payment_changed`: the absolute state, with a version).
"""

from backbone.optional_imports import without

with without("requests"):  # 3 MB with its libraries; our client of Stripe is aiohttp
    import stripe  # noqa: F401
