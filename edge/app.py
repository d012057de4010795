"""Composition root of the publisher."""

from __future__ import annotations

import aiohttp

from backbone.service import Service, Worker, listen, metrics_app, serve
from edge.channel import Channel
from edge.follower import Follower
from edge.positions import Positions
from edge.settings import EdgeSettings


async def run(settings: EdgeSettings) -> None:
    """Follow every drive and publish its frames until SIGTERM or SIGINT."""
    metrics = listen("127.0.0.1", settings.metrics_port, "ATAA_METRICS_PORT")
    session = aiohttp.ClientSession(
        # Shorter than nginx's 65 s: no request is sent on a connection the server is closing.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30.0),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    workers = []
    for drive in settings.edge_drives:
        channels = [
            Channel(session, f"{nchan.rstrip('/')}/publish/{drive}", drive, settings.edge_frames_per_s)
            for nchan in settings.edge_nchan
        ]
        positions = Positions(settings.data_dir / "edge" / f"{drive}.json", channels)
        follower = Follower(session, settings.edge_gateway, drive, channels, positions.read())
        workers += [Worker(f"edge.{drive}", follower.run), Worker(f"edge.{drive}.position", positions.keep)]
        workers += [Worker(f"edge.{drive}.publish", channel.run) for channel in channels]
    await serve([Service("edge", metrics_app, workers, close=session.close)], [(metrics_app, metrics)])
