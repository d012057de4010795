"""A PostgreSQL database's address as people write it, with libpq's words for TLS in it.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_FILES: Final = ("sslrootcert", "sslcert", "sslkey", "sslcrl")


def split_tls(url: URL) -> tuple[URL, dict[str, Any]]:
    """`url` for SQLAlchemy with asyncpg, and asyncpg's further arguments.

    asyncpg knows `sslmode`, `sslrootcert` and the like in an address of its own only, which goes with the
    arguments; SQLAlchemy would hand them to it by name, and it would not know them.
    """
    tls = {name: value for name, value in url.query.items() if name.startswith("ssl") and name != "ssl"}
    plain = url.set(drivername="postgresql+asyncpg").difference_update_query(tls)
    return plain, {"dsn": f"postgresql://?{urlencode(tls, doseq=True)}"} if tls else {}


def check(address: str) -> None:
    """Raises ValueError, in words for a person, where it cannot be the address of a PostgreSQL database."""
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise ValueError("must be postgresql://user:password@host:port/database") from None
    mode = url.query.get("sslmode", "prefer")
    if mode not in _MODES:
        raise ValueError(f"sslmode must be one of {', '.join(_MODES)}")
    for name in _FILES:
        file = url.query.get(name)
        if isinstance(file, str) and not Path(file).is_file():
            raise ValueError(f"{name}: there is no file {file}")
    if mode in ("verify-ca", "verify-full") and "sslrootcert" not in url.query:
        raise ValueError(f"sslmode={mode} needs sslrootcert, the PEM of the authorities to trust")
