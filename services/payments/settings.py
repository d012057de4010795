"""Settings of the payments service."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_core.core_schema import ValidationInfo

from backbone.settings import CommaSeparated, DatabaseUrl, HttpUrl, Settings
from backbone.stripe_keys import StripeMode, is_live

SANDBOX_BACKFILL_S = 5.0
STRIPE_BACKFILL_S = 60.0
SANDBOX_SWEEP_S = 10.0
STRIPE_SWEEP_S = 300.0
STRIPE_RATE_PER_S = 20.0
SANDBOX_SETTLEMENT_S = 30.0
STRIPE_SETTLEMENT_S = 600.0
SHORTEST_CHECKOUT_S = 1_800


def _none_of(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


class PaymentsSettings(Settings):
    """Settings of payments, from the environment. A Stripe key without a webhook secret is invalid."""

    payments_port: int = Field(
        8002, ge=0, le=65535, description="Port of payments when it runs as a separate process."
    )
    url_pledges: HttpUrl = Field(
        "http://127.0.0.1:8001", description="URL of pledges, for services in other processes."
    )
    url_leaderboard: HttpUrl = Field(
        "http://127.0.0.1:8003", description="Where leaderboard is, for the services in other processes."
    )
    database_url_payments: DatabaseUrl = Field(
        "", description="Database URL of payments; empty: SQLite in the data directory."
    )
    database_synchronous: Literal["FULL", "NORMAL", "OFF"] = Field(
        "FULL", description="SQLite's synchronous pragma for durable transactions."
    )
    gateway_port: int = Field(8000, ge=0, le=65535, description="Port of the gateway.")
    public_url: str = Field("", description="Public URL; empty: http://127.0.0.1:{ATAA_GATEWAY_PORT}.")
    stripe_api_base: str = Field(
        "", description="Base URL of Stripe's API, or of the sandbox; empty: Stripe."
    )
    stripe_api_key: SecretStr = Field(SecretStr(""), description="Stripe's secret key.")
    stripe_mode: StripeMode = Field(
        "",
        description="Mode of Stripe's key, live or test. Pledges needs it where it has no key.",
    )
    stripe_webhook_secrets: CommaSeparated = Field(
        default_factory=list,
        description="Webhook signing secrets, comma-separated; two while one is rotated.",
        validate_default=True,
    )
    stripe_publishable_key: str = Field("", description="Stripe's publishable key, for embedded checkouts.")
    stripe_rate_per_s: float | None = Field(
        None,
        ge=0,
        description="Rate limit of checkout and sweep calls to Stripe, per second; 0: no limit. "
        "Default 20; none for the sandbox.",
    )
    stripe_in_flight: int = Field(32, ge=1, le=500, description="Maximum of concurrent calls to Stripe.")
    stripe_timeout_s: float | None = Field(
        None, gt=0, description="Timeout of a call to Stripe in seconds. Default 10; 3 for the sandbox."
    )
    stripe_backfill_s: float | None = Field(
        None, gt=0, description="Seconds between backfills of lost webhooks. Default 60; 5 for the sandbox."
    )
    stripe_foreign: Literal["ignore", "hold"] = Field(
        "ignore",
        description="Payments on the Stripe account that carry no metadata of ours: ignore them, or (on an "
        "account without other business) post their money to the suspense account.",
    )
    stripe_account: str = Field(
        "",
        pattern=r"^(acct_[A-Za-z0-9]+)?$",
        description="Our Stripe account (acct_…), where webhooks arrive through a Connect endpoint. "
        "Events that name another account are ignored; where this is empty, all that name one.",
    )
    stripe_events_kept_days: int = Field(
        14,
        ge=1,
        description="Days that the bodies of applied Stripe events are kept; their ids are kept at least 35.",
    )
    stripe_sweep_s: float | None = Field(
        None,
        gt=0,
        description="Seconds between sweeps of Stripe's lists. Default 300; 10 for the sandbox.",
    )
    rates: str = Field(
        "",
        description="File or URL with exchange rates in the format of the ECB's eurofxref XML; empty: rates "
        "are set through the API only.",
    )
    rates_s: float = Field(3_600.0, gt=0, description="Seconds between reads of ATAA_RATES.")
    stripe_settlement_s: float | None = Field(
        None,
        gt=0,
        description="Seconds between reads of Stripe's balance transactions and payouts. Default 600; 30 for "
        "the sandbox.",
    )
    card_testing: Literal["enforce", "observe"] = Field(
        "enforce",
        description="Where cards are tested: enforce refuses clients, expires checkouts and holds gifts; "
        "observe only reports it.",
    )
    refund_approval_above: Annotated[int | None, BeforeValidator(_none_of)] = Field(
        10_000,
        ge=0,
        le=10**12,
        description="What one payment may give back in all by one key, in whole units of its drive's "
        "currency; a refund beyond it waits for a second key. Empty or none: one key is always enough.",
    )
    checkout_expires_s: int = Field(
        86_340,
        ge=1,
        le=86_400,
        description="Lifetime of a checkout in seconds, 1800 to 86400; the sandbox accepts less.",
    )

    checkout_overflow_after_s: float = Field(
        60.0,
        ge=0,
        description="A pledge of a menu amount whose estimated wait for a checkout is longer than so many "
        "seconds is given a prepared Payment Link; 0: never. Without a rate limit no link is prepared.",
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
        """Stripe accepts 30 minutes to 24 hours (docs.stripe.com/api/checkout/sessions/create)."""
        key: SecretStr | None = info.data.get("stripe_api_key")
        secret = key.get_secret_value() if key is not None else ""
        is_stripe = bool(secret) and (is_live(secret) or not info.data.get("stripe_api_base"))
        if is_stripe and seconds < SHORTEST_CHECKOUT_S:
            raise ValueError(f"must be at least {SHORTEST_CHECKOUT_S}: Stripe's minimum")
        return seconds

    @field_validator("stripe_api_base", "public_url")
    @classmethod
    def _address(cls, address: str) -> str:
        if address and not address.startswith(("http://", "https://")):
            raise ValueError("must be a URL that starts with http:// or https://")
        return address.rstrip("/")

    @property
    def stops_card_testing(self) -> bool:
        """Whether what is decided about card testing is done, not only reported."""
        return self.card_testing == "enforce"

    @property
    def database_url(self) -> str:
        """The database URL of payments."""
        return self.database_url_payments or f"sqlite:///{self.data_dir / 'payments.db'}"

    @property
    def donor_url(self) -> str:
        """The public URL, without a trailing slash."""
        return self.public_url or f"http://127.0.0.1:{self.gateway_port}"

    @property
    def rate_per_s(self) -> float:
        """Rate limit of checkout and sweep calls to Stripe, per second; 0 is no limit."""
        if self.stripe_rate_per_s is not None:
            return self.stripe_rate_per_s
        return 0.0 if self.stripe_api_base else STRIPE_RATE_PER_S

    @property
    def uses_links(self) -> bool:
        """Whether pledges may be given Payment Links: without a rate limit, no queue is that long."""
        return self.checkout_overflow_after_s > 0 and self.rate_per_s > 0

    @property
    def timeout_s(self) -> float:
        """Timeout of one call to Stripe."""
        return self.stripe_timeout_s or (3.0 if self.stripe_api_base else 10.0)

    @property
    def backfill_s(self) -> float:
        """Interval between two backfills of lost webhooks."""
        return self.stripe_backfill_s or (SANDBOX_BACKFILL_S if self.stripe_api_base else STRIPE_BACKFILL_S)

    @property
    def sweep_s(self) -> float:
        """Interval between two sweeps of Stripe's lists."""
        return self.stripe_sweep_s or (SANDBOX_SWEEP_S if self.stripe_api_base else STRIPE_SWEEP_S)

    @property
    def settlement_s(self) -> float:
        """Interval between two reads of Stripe's balance transactions."""
        default = SANDBOX_SETTLEMENT_S if self.stripe_api_base else STRIPE_SETTLEMENT_S
        return self.stripe_settlement_s or default

    @property
    def sweep_grace_s(self) -> float:
        """Minimum age of an object that the sweep compares; its webhooks usually arrive earlier."""
        return 2.0 if self.stripe_api_base else 300.0

    @property
    def hanging_grace_s(self) -> float:
        """How long after a checkout's end Stripe is asked about it; a backfill usually finds it earlier."""
        return max(2 * self.backfill_s, self.sweep_grace_s)

    @property
    def livemode(self) -> bool:
        """Whether Stripe's key is a live key."""
        return is_live(self.stripe_api_key.get_secret_value())
