"""What a Stripe API key says about itself (https://docs.stripe.com/keys)."""

from __future__ import annotations

from typing import Literal

StripeMode = Literal["", "live", "test"]
"""Whether charges move real money; empty: as the key says, test where there is none."""


def is_live(key: str) -> bool:
    """Whether a secret or restricted key moves real money."""
    return key.startswith(("sk_live_", "rk_live_"))
