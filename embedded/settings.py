"""What the embedded run reads beyond the settings of its services."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from backbone.process import ProcessSettings
from backbone.settings import Settings
from gateway.settings import GatewaySettings
from services.leaderboard.settings import LeaderboardSettings
from services.notify.settings import NotifySettings
from services.payments.settings import PaymentsSettings
from services.pledges.settings import PledgesSettings


class EmbeddedSettings(Settings):
    """The embedded run's own."""

    sandbox_port: int = Field(
        8012, ge=1, le=65535, description="Port of the Stripe sandbox, which runs when no Stripe key is set."
    )


ALL_SETTINGS: Final = (
    EmbeddedSettings,
    ProcessSettings,
    GatewaySettings,
    PledgesSettings,
    PaymentsSettings,
    LeaderboardSettings,
    NotifySettings,
)
"""Every settings class there is, for `make settings`."""

OUTSIDE: Final = {
    "ATAA_CRASH_AT": "Tests: `name:n` kills the process at the n-th pass of a crash point.",
    "ATAA_REQUIRE_REAL": "Tests: 1 makes a missing real engine or browser a failure instead of a skip.",
    "ATAA_STACK_PORT_BASE": "First port of the real stack on one machine.",
}
"""Variables read outside the settings classes."""
