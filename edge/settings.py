"""Settings of the publisher, read from the environment."""

from __future__ import annotations

from pydantic import Field

from backbone.settings import CommaSeparated, HttpUrl, Settings


class EdgeSettings(Settings):
    """Settings of `python -m edge`."""

    edge_gateway: HttpUrl = Field(
        "http://127.0.0.1:8000", description="The gateway whose streams `python -m edge` follows."
    )
    edge_drives: CommaSeparated = Field(
        [], description="Drives that `python -m edge` publishes to nchan: ids or slugs, with commas."
    )
    edge_nchan: CommaSeparated = Field(
        ["http://127.0.0.1:8078"], description="The publisher addresses of every nchan, with commas."
    )
    edge_frames_per_s: float = Field(
        4.0, gt=0, le=20, description="Messages a second that `python -m edge` sends for each drive at most."
    )
