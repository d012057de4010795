"""Settings of leaderboard, read from the environment."""

from __future__ import annotations

from pydantic import Field

from backbone.database.database import Synchronous
from backbone.settings import DatabaseUrl, HttpUrl, Settings


class LeaderboardSettings(Settings):
    """Settings of the leaderboard service."""

    leaderboard_port: int = Field(
        8003, ge=0, le=65535, description="Port of leaderboard, where it is a process of its own."
    )
    url_pledges: HttpUrl = Field(
        "http://127.0.0.1:8001", description="Where pledges is, for the services in other processes."
    )
    database_url_leaderboard: DatabaseUrl = Field(
        "", description="Database of leaderboard, postgresql://…; empty: SQLite in the data directory."
    )
    database_synchronous: Synchronous = Field(
        "FULL", description="How durable a commit on SQLite is: FULL, NORMAL or OFF."
    )

    def database_url(self) -> str:
        """The URL of the database."""
        return self.database_url_leaderboard or f"sqlite:///{self.data_dir / 'leaderboard.db'}"
