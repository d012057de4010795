"""What payments reads from its environment."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_core.core_schema import ValidationInfo

from backbone.settings import CommaSeparated, DatabaseUrl, HttpUrl, Settings
from backbone.stripe_keys import StripeMode, is_live

SANDBOX_BACKFILL_S = 5.0
STRIPE_BACKFILL_S = 60.0
SANDBOX_SWEEP_S = 10.0
STRIPE_SWEEP_S = 300.0
STRIPE_RATE_PER_S = 20.0
SHORTEST_CHECKOUT_S = 1_800


class PaymentsSettings(Settings):
    """Settings of the payments service; a Stripe key without a webhook secret stops the start."""

    payments_port: int = Field(
        8002, ge=0, le=65535, description="Port of payments, where it is a process of its own."
    )
    url_pledges: HttpUrl = Field(
        "http://127.0.0.1:8001", description="Where pledges is, for the services in other processes."
    )
    database_url_payments: DatabaseUrl = Field(
        "", description="Database of payments; empty: SQLite in the data dir."
    )
    database_synchronous: Literal["FULL", "NORMAL", "OFF"] = Field(
        "FULL", description="SQLite's synchronous pragma for durable transactions."
    )
    gateway_port: int = Field(8000, ge=0, le=65535, description="Port of the public door.")
    public_url: str = Field(
        "", description="Where donors reach this installation; empty: http://127.0.0.1:{ATAA_GATEWAY_PORT}."
    )
    stripe_api_base: str = Field("", description="Stripe's address, or the sandbox's; empty: Stripe itself.")
    stripe_api_key: SecretStr = Field(SecretStr(""), description="Stripe's secret key.")
    stripe_mode: StripeMode = Field(
        "",
        description="live or test: whether Stripe's key moves real money. Pledges needs it if it has no key.",
    )
    stripe_webhook_secrets: CommaSeparated = Field(
        default_factory=list,
        description="Secrets that sign Stripe's webhooks, comma-separated, two while one is rotated.",
        validate_default=True,
    )
    stripe_publishable_key: str = Field("", description="Stripe's publishable key, for embedded checkouts.")
    stripe_rate_per_s: float | None = Field(
        None,
        ge=0,
        description="Checkouts opened a second; 0: no limit. Default 20, none against the sandbox.",
    )
    stripe_in_flight: int = Field(32, ge=1, le=500, description="Calls to Stripe at the same time.")
    stripe_timeout_s: float | None = Field(
        None, gt=0, description="How long a call to Stripe may take. Default 10, 3 against the sandbox."
    )
    stripe_backfill_s: float | None = Field(
        None, gt=0, description="Seconds between looks for lost webhooks. Default 60, 5 against the sandbox."
    )
    stripe_foreign: Literal["ignore", "hold"] = Field(
        "ignore",
        description="Payments on the Stripe account that name nothing of ours: ignore them, or (on an "
        "account without other business) hold their money.",
    )
    stripe_account: str = Field(
        "",
        pattern=r"^(acct_[A-Za-z0-9]+)?$",
        description="Our Stripe account (acct_…), where webhooks come through a platform's Connect endpoint; "
        "events that name another are ignored, and so are all that name one where this is empty.",
    )
    stripe_events_kept_days: int = Field(
        14,
        ge=1,
        description="Days the text of Stripe's applied events is kept; their ids are kept at least 35.",
    )
    stripe_sweep_s: float | None = Field(
        None,
        gt=0,
        description="Seconds between sweeps of Stripe's lists. Default 300, 10 against the sandbox.",
    )
    checkout_expires_s: int = Field(
        86_340,
        ge=1,
        le=86_400,
        description="How long a checkout stays open: 1800 to 86400; the sandbox takes less.",
    )

    @field_validator("stripe_webhook_secrets")
    @classmethod
    def _secret_for_key(cls, secrets: list[str], info: ValidationInfo) -> list[str]:
        key: SecretStr | None = info.data.get("stripe_api_key")
        if key is not None and key.get_secret_value() and not secrets:
            raise ValueError("a Stripe key is set without a webhook secret; set ATAA_STRIPE_WEBHOOK_SECRETS")
        return secrets

    @field_validator("stripe_mode")
    @classmethod
    def _mode_of_key(cls, mode: str, info: ValidationInfo) -> str:
        key: SecretStr | None = info.data.get("stripe_api_key")
        secret = key.get_secret_value() if key is not None else ""
        if mode and secret and (mode == "live") is not is_live(secret):
            raise ValueError(f"is {mode}, but ATAA_STRIPE_API_KEY is a key of the other mode")
        return mode

    @field_validator("checkout_expires_s")
    @classmethod
    def _as_long_as_stripe_allows(cls, seconds: int, info: ValidationInfo) -> int:
        """Stripe takes 30 minutes to 24 hours (docs.stripe.com/api/checkout/sessions/create, expires_at)."""
        key: SecretStr | None = info.data.get("stripe_api_key")
        secret = key.get_secret_value() if key is not None else ""
        is_stripe = bool(secret) and (is_live(secret) or not info.data.get("stripe_api_base"))
        if is_stripe and seconds < SHORTEST_CHECKOUT_S:
            raise ValueError(f"must be at least {SHORTEST_CHECKOUT_S}: Stripe ends no checkout earlier")
        return seconds

    @field_validator("stripe_api_base", "public_url")
    @classmethod
    def _address(cls, address: str) -> str:
        if address and not address.startswith(("http://", "https://")):
            raise ValueError("must be an address that starts with http:// or https://")
        return address.rstrip("/")

    @property
    def database_url(self) -> str:
        """Where payments keeps its rows."""
        return self.database_url_payments or f"sqlite:///{self.data_dir / 'payments.db'}"

    @property
    def donor_url(self) -> str:
        """The public address without a slash at its end."""
        return self.public_url or f"http://127.0.0.1:{self.gateway_port}"

    @property
    def rate_per_s(self) -> float:
        """Checkouts a second; 0 is no limit."""
        if self.stripe_rate_per_s is not None:
            return self.stripe_rate_per_s
        return 0.0 if self.stripe_api_base else STRIPE_RATE_PER_S

    @property
    def timeout_s(self) -> float:
        """Bound of one call to Stripe."""
        return self.stripe_timeout_s or (3.0 if self.stripe_api_base else 10.0)

    @property
    def backfill_s(self) -> float:
        """Pause between two looks for lost webhooks."""
        return self.stripe_backfill_s or (SANDBOX_BACKFILL_S if self.stripe_api_base else STRIPE_BACKFILL_S)

    @property
    def sweep_s(self) -> float:
        """Pause between two sweeps of Stripe's lists."""
        return self.stripe_sweep_s or (SANDBOX_SWEEP_S if self.stripe_api_base else STRIPE_SWEEP_S)

    @property
    def sweep_grace_s(self) -> float:
        """How old an object must be before the sweep compares it: its webhooks come first."""
        return 2.0 if self.stripe_api_base else 300.0

    @property
    def livemode(self) -> bool:
        """Whether the key is one for real money."""
        return is_live(self.stripe_api_key.get_secret_value())
