"""The header that names the client of a pledge to the services: a keyed hash of its address, never the
address.

The gateway sets it for donors' browsers and removes it from requests of clients, as all `Ataa-…` headers.
"""

from __future__ import annotations

import re
from typing import Final

CLIENT_HEADER: Final = "ataa-client"

_CLIENT: Final = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)


def client_of(header: str | None) -> str | None:
    """The client that a header names; None without one, or where it has not the form of one."""
    return header if header and _CLIENT.fullmatch(header) else None
