"""What leaderboard reads from its environment."""

from __future__ import annotations

from pydantic import Field

from backbone.database import Synchronous
from backbone.settings import DatabaseUrl, Settings


class LeaderboardSettings(Settings):
    """Leaderboard's own settings."""

    database_url_leaderboard: DatabaseUrl = Field(
        "", description="Database of leaderboard, postgresql://…; empty: SQLite in the data directory."
    )
    database_synchronous: Synchronous = Field(
        "FULL", description="How durable a commit on SQLite is: FULL, NORMAL or OFF."
    )

    def database_url(self) -> str:
        """Where the database is."""
        return self.database_url_leaderboard or f"sqlite:///{self.data_dir / 'leaderboard.db'}"
