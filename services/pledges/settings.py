"""Settings of pledges."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from backbone.amount_list import check_amounts
from backbone.database.database import Synchronous
from backbone.settings import DatabaseUrl, Settings
from backbone.stripe_keys import StripeMode, is_live


class PledgesSettings(Settings):
    """Environment variables that pledges reads."""

    pledges_port: int = Field(
        8001, ge=0, le=65535, description="Port of pledges when it runs as its own process."
    )
    database_url_pledges: DatabaseUrl = Field(
        "", description="Database of pledges, postgresql://…; empty: SQLite in the data directory."
    )
    database_synchronous: Synchronous = Field(
        "FULL", description="How durable a commit on SQLite is: FULL, NORMAL or OFF."
    )
    token_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret from which pledge tokens and donor identities are derived; must never change.",
    )

    minimum_amount: Annotated[str, AfterValidator(check_amounts)] = Field(
        "",
        description="The least that donors may give (not partners' servers), such as 1.00 USD, 1.00 EUR; "
        "empty: Stripe's minimum.",
    )
    stripe_mode: StripeMode = Field(
        "",
        description="live or test: whether Stripe's key moves real money. Required by pledges without a key.",
    )
    stripe_api_key: SecretStr = Field(SecretStr(""), description="Stripe's secret key.")

    @property
    def moves_real_money(self) -> bool:
        """Whether checkouts charge real cards; test drives then refuse pledges."""
        return self.stripe_mode == "live" or is_live(self.stripe_api_key.get_secret_value())

    def database_url(self) -> str:
        """The URL of pledges' database."""
        return self.database_url_pledges or f"sqlite:///{self.data_dir / 'pledges.db'}"
