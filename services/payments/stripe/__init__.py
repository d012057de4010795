"""The Stripe implementation of the `Processor` protocol: client, objects, events, rate limiter."""
