"""A test drive takes no pledges where Stripe's key would charge real cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.pledges.harness import pledges_harness

REFUSED = "/problems/test-drive-needs-test-mode"
LIVE = [
    {"stripe_mode": "live"},
    {"stripe_api_key": SecretStr("sk_live_1")},
    {"stripe_api_key": SecretStr("rk_live_1")},
]
NOT_LIVE = [{}, {"stripe_mode": "test"}, {"stripe_api_key": SecretStr("sk_test_1")}]


@pytest.mark.parametrize("settings", LIVE)
async def test_pledge_to_a_test_drive_is_refused_with_a_live_key(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with pledges_harness(tmp_path, **settings) as harness:
        await harness.drive(test=True)
        for mode in ("test", "live"):
            reply = await harness.pledge(mode=mode)
            assert (reply.status, reply.json()["type"]) == (409, REFUSED)
            assert "test key" in reply.json()["detail"]
        assert (await harness.rows())["pledges"] == 0


@pytest.mark.parametrize("settings", LIVE)
async def test_pledge_to_a_live_drive_is_accepted_with_a_live_key(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with pledges_harness(tmp_path, **settings) as harness:
        await harness.drive()
        assert (await harness.pledge()).status == 201


@pytest.mark.parametrize("settings", NOT_LIVE)
async def test_pledge_to_a_test_drive_is_accepted_without_a_live_key(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    async with pledges_harness(tmp_path, **settings) as harness:
        await harness.drive(test=True)
        assert (await harness.pledge(mode="test")).status == 201


async def test_checkout_details_mark_pledges_of_test_drives(tmp_path: Path) -> None:
    async with pledges_harness(tmp_path) as harness:
        await harness.drive(test=True)
        pledge = (await harness.pledge()).json()["id"]
        assert (await harness.post_internal("/internal/checkout-details", ids=[pledge]))[pledge][
            "test"
        ] is True
