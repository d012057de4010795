"""The settings of the embedded run, in addition to those of its services."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from backbone.process import ProcessSettings
from backbone.settings import Settings
from edge.settings import EdgeSettings
from gateway.settings import GatewaySettings
from services.leaderboard.settings import LeaderboardSettings
from services.notify.settings import NotifySettings
from services.payments.settings import PaymentsSettings
from services.pledges.settings import PledgesSettings


class EmbeddedSettings(Settings):
    """The embedded run's own settings."""

    sandbox_port: int = Field(
        8012, ge=1, le=65535, description="Port of the Stripe sandbox, which runs where no Stripe key is set."
    )


ALL_SETTINGS: Final = (
    EmbeddedSettings,
    ProcessSettings,
    GatewaySettings,
    PledgesSettings,
    PaymentsSettings,
    LeaderboardSettings,
    NotifySettings,
    EdgeSettings,
)
"""All settings classes, for `make settings`."""

OUTSIDE: Final = {
    "ATAA_CRASH_AT": "Tests: `name:n` kills the process at the n-th pass of a crash point.",
    "ATAA_REQUIRE_REAL": "Tests: 1 makes a missing server or browser a failure instead of a skip.",
    "ATAA_STACK_PORT_BASE": "First port of the stack on one machine.",
}
"""Variables that are read outside the settings classes."""
