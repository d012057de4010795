"""Settings: a key without a webhook secret is a startup error; the sandbox has no rate limit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from backbone.settings import load
from services.payments.settings import PaymentsSettings


def test_a_stripe_key_without_a_webhook_secret_is_a_startup_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATAA_STRIPE_API_KEY", "sk_test_1")
    with pytest.raises(SystemExit):
        load(PaymentsSettings)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "ATAA_STRIPE_WEBHOOK_SECRETS" in line
    assert "sk_test_1" not in line


def test_webhook_secrets_are_a_list_for_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATAA_STRIPE_API_KEY", "sk_live_1")
    monkeypatch.setenv("ATAA_STRIPE_WEBHOOK_SECRETS", "whsec_new,whsec_old")
    settings = load(PaymentsSettings)
    assert settings.stripe_webhook_secrets == ["whsec_new", "whsec_old"]
    assert settings.livemode


def test_calls_to_stripe_are_rate_limited_and_calls_to_the_sandbox_are_not() -> None:
    stripe = PaymentsSettings(stripe_api_base="")
    sandbox = PaymentsSettings(stripe_api_base="http://127.0.0.1:8012/")
    assert (stripe.rate_per_s, stripe.backfill_s, stripe.timeout_s) == (20.0, 60.0, 10.0)
    assert (sandbox.rate_per_s, sandbox.backfill_s, sandbox.timeout_s) == (0.0, 5.0, 3.0)
    assert sandbox.stripe_api_base == "http://127.0.0.1:8012"
    assert not PaymentsSettings(stripe_api_key=SecretStr("sk_test_1"), stripe_webhook_secrets=["w"]).livemode


def test_an_address_must_be_a_url() -> None:
    with pytest.raises(ValidationError):
        PaymentsSettings(stripe_api_base="localhost:8012")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STRIPE_FOREIGN", "drop"),
        ("STRIPE_ACCOUNT", "cus_1"),
        ("STRIPE_ACCOUNT", "acct_"),
        ("STRIPE_EVENTS_KEPT_DAYS", "0"),
    ],
)
def test_an_invalid_account_setting_is_a_startup_error_that_names_the_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"ATAA_{name}", value)
    with pytest.raises(SystemExit):
        load(PaymentsSettings)
    assert f"ATAA_{name}" in capsys.readouterr().err


def test_foreign_money_is_ignored_unless_configured_to_be_held() -> None:
    assert PaymentsSettings().stripe_foreign == "ignore"
    assert PaymentsSettings(stripe_foreign="hold", stripe_account="acct_1Ours").stripe_account == "acct_1Ours"


@pytest.mark.parametrize("seconds", ["1799", "86401", "0"])
def test_an_invalid_checkout_lifetime_is_a_startup_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    monkeypatch.setenv("ATAA_STRIPE_API_KEY", "rk_test_1")
    monkeypatch.setenv("ATAA_STRIPE_WEBHOOK_SECRETS", "whsec_1")
    monkeypatch.setenv("ATAA_CHECKOUT_EXPIRES_S", seconds)
    with pytest.raises(SystemExit):
        load(PaymentsSettings)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "ATAA_CHECKOUT_EXPIRES_S" in line


@pytest.mark.parametrize(
    ("base", "key", "allowed"),
    [
        ("http://127.0.0.1:8012", "sk_test_1", True),
        ("", "", True),  # the embedded run's sandbox
        ("", "sk_test_1", False),
        ("http://a.proxy.of.stripe", "sk_live_1", False),
    ],
)
def test_only_the_sandbox_accepts_a_checkout_lifetime_of_seconds(base: str, key: str, allowed: bool) -> None:
    given = {"stripe_api_base": base, "stripe_api_key": key, "stripe_webhook_secrets": ["whsec_1"]}
    if allowed:
        assert PaymentsSettings(**given, checkout_expires_s=2).checkout_expires_s == 2
    else:
        with pytest.raises(ValidationError, match="1800"):
            PaymentsSettings(**given, checkout_expires_s=2)


@pytest.mark.parametrize(
    ("mode", "key", "fits"),
    [
        ("live", "sk_live_1", True), ("test", "rk_test_1", True), ("live", "", True), ("", "sk_live_1", True),
        ("live", "sk_test_1", False), ("test", "rk_live_1", False),
    ],
)  # fmt: skip
def test_a_mode_that_differs_from_the_keys_is_a_startup_error(mode: str, key: str, fits: bool) -> None:
    given: dict[str, Any] = {"stripe_mode": mode, "stripe_api_key": key, "stripe_webhook_secrets": ["w"]}
    if fits:
        assert PaymentsSettings(**given).stripe_mode == mode
    else:
        with pytest.raises(ValidationError, match="other mode"):
            PaymentsSettings(**given)
