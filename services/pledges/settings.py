"""What pledges reads from its environment."""

from __future__ import annotations

from pydantic import Field, SecretStr

from backbone.database.database import Synchronous
from backbone.settings import DatabaseUrl, Settings
from backbone.stripe_keys import StripeMode, is_live


class PledgesSettings(Settings):
    """Settings of pledges."""

    pledges_port: int = Field(
        8001, ge=0, le=65535, description="Port of pledges, where it is a process of its own."
    )
    database_url_pledges: DatabaseUrl = Field(
        "", description="Database of pledges, postgresql://…; empty: SQLite in the data directory."
    )
    database_synchronous: Synchronous = Field(
        "FULL", description="How durable a commit on SQLite is: FULL, NORMAL or OFF."
    )
    token_secret: SecretStr = Field(
        SecretStr(""),
        description="Makes pledges' tokens and knows donors by e-mail; must stay the same for ever.",
    )

    stripe_mode: StripeMode = Field(
        "",
        description="live or test: whether Stripe's key moves real money. Pledges needs it if it has no key.",
    )
    stripe_api_key: SecretStr = Field(SecretStr(""), description="Stripe's secret key.")

    @property
    def moves_real_money(self) -> bool:
        """Whether a pledge's checkout charges real cards: a test drive then takes no pledges."""
        return self.stripe_mode == "live" or is_live(self.stripe_api_key.get_secret_value())

    def database_url(self) -> str:
        """Where pledges keeps what it owns."""
        return self.database_url_pledges or f"sqlite:///{self.data_dir / 'pledges.db'}"
