"""Connections to PostgreSQL whose every wait has an end, on our side and on the server's.

asyncpg has no bound by default, and TCP gives a connection whose packets vanish a quarter of an hour.
Here the side that asks has a bound on each transaction (`backbone.database.database`), and the server is
told to
end what its client has given up: a statement past the bound, a transaction in which nothing is said, a
connection whose other end acknowledges nothing.
https://www.postgresql.org/docs/current/runtime-config-client.html
https://www.postgresql.org/docs/current/runtime-config-connection.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy import URL, Pool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from backbone.database.transient import DatabaseUnavailable

TCP_USER_TIMEOUT_S: Final = 20
"""The server ends a connection whose client has acknowledged nothing for so long."""

_TCP_SETTINGS: Final = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": str(TCP_USER_TIMEOUT_S * 1000),  # without effect where the system has none
}


def open_postgres(
    url: URL,
    arguments: Mapping[str, Any],
    settings: Mapping[str, str],
    *,
    poolclass: type[Pool] | None = None,
    **options: Any,
) -> AsyncEngine:
    """An engine for `url` with asyncpg's `arguments` and the session's `settings`.

    Raises DatabaseUnavailable, at its use, where no connection can be made.
    """
    connect_args = {
        **arguments,
        "server_settings": {**_TCP_SETTINGS, **settings},
        "async_creator_fn": _connect,
    }
    return create_async_engine(url, connect_args=connect_args, poolclass=poolclass, **options)


async def _connect(*args: Any, **kwargs: Any) -> asyncpg.Connection[Any]:
    try:
        return await asyncpg.connect(*args, **kwargs)
    except OSError as error:  # refused, unreachable, unknown host, no socket, a certificate refused
        raise DatabaseUnavailable(" ".join(str(error).split()) or type(error).__name__) from error


def milliseconds(seconds: float) -> str:
    """A duration as PostgreSQL's settings count it."""
    return f"{seconds * 1000:.0f}"
