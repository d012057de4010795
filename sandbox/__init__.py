"""The Stripe sandbox: a stateful stand-in for what payments uses of Stripe's API.

Owns: Checkout Sessions, PaymentIntents, Charges, Refunds, Disputes, Events, idempotent answers, books.
Hears: Stripe's HTTP API (`/v1`), its own pay pages (`/c/pay`) and its controls (`/_sandbox`).
Says: webhooks signed as Stripe signs them, retried until 2xx.

It shares no code with the services it is a witness for: its currency rules and books are its own.
"""
