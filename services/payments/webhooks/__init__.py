"""Stripe's webhooks: received, stored, applied in batches, listed for operators, pruned."""
