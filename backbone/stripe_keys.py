"""The mode of a Stripe API key, from its prefix (https://docs.stripe.com/keys)."""

from __future__ import annotations

from typing import Literal

StripeMode = Literal["", "live", "test"]
"""Whether charges move real money. Empty: the mode of the key, or test without a key."""


def is_live(key: str) -> bool:
    """Whether a secret or restricted key moves real money."""
    return key.startswith(("sk_live_", "rk_live_"))
