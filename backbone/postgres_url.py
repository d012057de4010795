"""PostgreSQL URLs with libpq's TLS parameters, and values of its settings.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

if TYPE_CHECKING:  # reading settings must not import SQLAlchemy
    from sqlalchemy import URL

_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")


def split_tls(url: URL) -> tuple[URL, dict[str, Any]]:
    """The URL for SQLAlchemy with asyncpg, and further arguments for asyncpg.

    asyncpg accepts `sslmode`, `sslrootcert` and other TLS parameters in a DSN only, but SQLAlchemy would pass
    them as keyword arguments. They are moved into a DSN among the arguments.
    """
    tls = {name: value for name, value in url.query.items() if name.startswith("ssl") and name != "ssl"}
    plain = url.set(drivername="postgresql+asyncpg").difference_update_query(tls)
    return plain, {"dsn": f"postgresql://?{urlencode(tls, doseq=True)}"} if tls else {}


def check(address: str) -> None:
    """Raises ValueError, with a readable reason, where `address` is not a valid PostgreSQL URL."""
    try:
        url = urlsplit(address)
        _ = url.port  # raises for a port that is not a number
    except ValueError:
        raise ValueError("must be postgresql://user:password@host:port/database") from None
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    mode = query.get("sslmode", "prefer")
    if mode not in _MODES:
        raise ValueError(f"sslmode must be one of {', '.join(_MODES)}")
    for name in _FILES:
        file = query.get(name)
        if file is not None and not Path(file).is_file():
            raise ValueError(f"{name}: there is no file {file}")
    if mode in ("verify-ca", "verify-full") and "sslrootcert" not in query:
        raise ValueError(f"sslmode={mode} needs sslrootcert, the PEM file of trusted certificate authorities")


def milliseconds(seconds: float) -> str:
    """A duration in the unit of PostgreSQL's settings."""
    return f"{seconds * 1000:.0f}"
