"""Settings of the gateway, read from the environment."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from backbone.amount_list import amounts_by_currency, check_amounts
from backbone.database.database import Synchronous
from backbone.settings import DatabaseUrl, HttpUrl, Settings
from gateway.fees import MOST_BPS, FeeRule
from gateway.transparency.note_keys import NoteSigner

_ADMIN_KEY: Final = re.compile(r"ak_admin_[A-Za-z0-9]{20,200}", re.ASCII)


def _admin_key(key: SecretStr) -> SecretStr:
    if key.get_secret_value() and _ADMIN_KEY.fullmatch(key.get_secret_value()) is None:
        raise ValueError("must be ak_admin_ and at least 20 letters and digits")
    return key


def _log_key(key: SecretStr) -> SecretStr:
    if key.get_secret_value():
        NoteSigner.parse(key.get_secret_value())
    return key


def _public_url(url: str) -> str:
    if not url:
        return url
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/"):
        raise ValueError("must be an address such as https://give.example.org, without a path")
    return f"{parts.scheme}://{parts.netloc}".lower()


def _networks(text: str) -> str:
    for one in filter(None, map(str.strip, text.split(","))):
        try:
            ip_network(one)
        except ValueError:
            raise ValueError(
                "must be addresses or networks such as 10.0.0.0/8, with commas between"
            ) from None
    return text


class GatewaySettings(Settings):
    """Settings of the gateway."""

    gateway_host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    gateway_port: int = Field(8000, ge=1, le=65535, description="Port of the gateway.")
    url_pledges: HttpUrl = Field(
        "http://127.0.0.1:8001", description="Where pledges is, for the services in other processes."
    )
    url_payments: HttpUrl = Field(
        "http://127.0.0.1:8002", description="Where payments is, for the services in other processes."
    )
    url_leaderboard: HttpUrl = Field(
        "http://127.0.0.1:8003", description="Where leaderboard is, for the services in other processes."
    )
    url_notify: HttpUrl = Field(
        "http://127.0.0.1:8004", description="Where notify is, for the services in other processes."
    )
    public_url: Annotated[str, AfterValidator(_public_url)] = Field(
        "", description="The gateway's public address; empty: whatever Host a request names."
    )
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = Field(
        "",
        description="Proxies whose X-Forwarded-For names the client: addresses or networks, with commas.",
    )
    admin_key: Annotated[SecretStr, AfterValidator(_admin_key)] = Field(
        SecretStr(""), description="The first admin key: ak_admin_ and at least 20 letters and digits."
    )
    log_key: Annotated[SecretStr, AfterValidator(_log_key)] = Field(
        SecretStr(""),
        description="Ed25519 key that signs the public logs, PRIVATE+KEY+…; empty: they are not served.",
    )
    database_url_gateway: DatabaseUrl = Field(
        "", description="Database of the keys (postgresql://…); empty: gateway.db in the data directory."
    )
    database_synchronous: Synchronous = Field(
        "FULL",
        description="SQLite's synchronous: FULL survives a power cut, NORMAL and OFF may lose commits.",
    )
    limit_key_per_s: float = Field(
        1000.0, gt=0, description="Requests a second of one publishable key, on average."
    )
    limit_address_per_s: float = Field(
        50.0, gt=0, description="Requests a second of one client address without a secret key; not loopback."
    )
    limit_pledges_address_per_min: float = Field(
        300.0,
        gt=0,
        description="Pledges a minute of one public address (IPv6: /64) without a secret key.",
    )
    limit_pledges_key_per_min: float = Field(
        30_000.0,
        gt=0,
        description="Pledges a minute of one publishable key; each process of the gateway counts its own.",
    )
    limit_burst_s: float = Field(4.0, ge=1, description="Seconds' worth of requests either limit lets burst.")
    pledges_in_flight: int = Field(1000, ge=1, description="Pledges being made at once; past it 503.")
    pledges_wait_s: float = Field(
        1.0, gt=0, description="Seconds a pledge may wait under overload; past it 503 with Retry-After."
    )
    overload_lag_s: float = Field(
        1.0, gt=0, description="Event loop's delay that is full load; from 30 % of it features give way."
    )
    webhooks_in_flight: int = Field(1000, ge=1, description="Webhooks being stored at once; past it 503.")
    reads_in_flight: int = Field(500, ge=1, description="Reads of the services at once; past it 503.")
    lookups_in_flight: int = Field(
        100, ge=1, description="Lookups for pages and totals at once, besides those reads; past it 503."
    )
    proofs_in_flight: int = Field(
        50,
        ge=1,
        description="Audits, checkpoints, tiles and proofs read at once; past it 503.",
    )
    changes_in_flight: int = Field(200, ge=1, description="Other changes at once; past it 503.")
    waits_in_flight: int = Field(
        10_000, ge=0, description="Replies held by Prefer: wait at once; past it none is held."
    )
    stripe_publishable_key: str = Field("", description="Stripe's publishable key, for embedded checkouts.")
    fee_bps: int = Field(
        290,
        ge=0,
        le=MOST_BPS,
        description="Processing fee that donors may add, in ten-thousandths; 0: the form does not ask.",
    )
    fee_fixed: Annotated[str, AfterValidator(check_amounts)] = Field(
        "0.30 USD", description="Fixed part of that fee by currency, such as 0.30 USD, 0.25 EUR."
    )
    live_clients: int = Field(20_000, ge=1, description="Open live streams; past it 503.")
    live_sends_per_s: float = Field(
        5000.0, gt=0, description="Frames sent a second over all live streams, from which the rate follows."
    )

    def log_signer(self) -> NoteSigner | None:
        """The key of the public logs."""
        key = self.log_key.get_secret_value()
        return NoteSigner.parse(key) if key else None

    def fee_rule(self) -> FeeRule:
        """The processing fee that donors may add."""
        return FeeRule(self.fee_bps, amounts_by_currency(self.fee_fixed))

    def database_url(self) -> str:
        """The URL of the database."""
        return self.database_url_gateway or f"sqlite:///{self.data_dir / 'gateway.db'}"
