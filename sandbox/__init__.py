"""The Stripe sandbox: a stateful stand-in for the part of Stripe's API that a donation needs.

Owns: Checkout Sessions, PaymentIntents, Charges, Refunds, Disputes, Events, idempotent responses, books.
Accepts: Stripe's HTTP API (`/v1`), its own payment pages (`/c/pay`) and its controls (`/_sandbox`).
Sends: webhooks signed as Stripe signs them, retried until a 2xx response.

It imports nothing of Ataa: an audit compares Ataa's books with the sandbox's, so its currency rules,
amounts and books are implemented separately. docs/sandbox.md describes how to use it.
"""
