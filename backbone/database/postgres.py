"""PostgreSQL connections with timeouts on both sides.

asyncpg has no timeout by default, and TCP keeps a connection whose packets are lost for a quarter of an hour.
Here `backbone.database.database` bounds each transaction, and the server is configured to end what a client
has abandoned: a statement past its timeout, an idle transaction, a connection whose client acknowledges
nothing.
https://www.postgresql.org/docs/current/runtime-config-client.html
https://www.postgresql.org/docs/current/runtime-config-connection.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from backbone.database.transient import DatabaseUnavailable

TCP_USER_TIMEOUT_S: Final = 20
"""The server ends a connection whose client has acknowledged no packet for so long."""

_TCP_SETTINGS: Final = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": str(TCP_USER_TIMEOUT_S * 1000),  # no effect where the system does not support it
}


def open_postgres(
    url: URL,
    arguments: Mapping[str, Any],
    settings: Mapping[str, str],
) -> AsyncEngine:
    """An engine without a pool, in autocommit, with asyncpg's `arguments` and the session's `settings`.

    Using it raises `DatabaseUnavailable` where no connection can be made.
    """
    connect_args = {
        **arguments,
        "server_settings": {**_TCP_SETTINGS, **settings},
        "async_creator_fn": _connect,
    }
    return create_async_engine(
        url, connect_args=connect_args, poolclass=NullPool, isolation_level="AUTOCOMMIT", hide_parameters=True
    )


async def _connect(*args: Any, **kwargs: Any) -> asyncpg.Connection[Any]:
    try:
        return await asyncpg.connect(*args, **kwargs)
    except OSError as error:  # refused, unreachable, unknown host, no socket, a certificate refused
        raise DatabaseUnavailable(" ".join(str(error).split()) or type(error).__name__) from error
