"""Ports for servers that a test starts later, in a process of their own.

Ephemeral ports are not used: between finding a free port and the server's start, or while a killed server
is restarted, the system could assign it to another test's server. A run assigns each port once across its
workers, from a range below the ephemeral ports and below those of the stacks in `tests/stack`.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import Final

FOLDER: Final = "ATAA_TEST_SERVERS"
"""The environment variable with the folder that the workers of a run share."""

_FIRST: Final = 10_000
_PORTS: Final = 14_000


def free_port() -> int:
    """A free TCP port on loopback that this run assigns only once."""
    with (Path(os.environ[FOLDER]) / "last_port").open("a+") as word:
        fcntl.flock(word, fcntl.LOCK_EX)
        word.seek(0)
        port = int(word.read() or _FIRST + os.getpid() * 97 % _PORTS)  # another run starts elsewhere
        for _ in range(_PORTS):
            port = _FIRST + (port + 1 - _FIRST) % _PORTS
            if _is_free(port):
                break
        word.truncate(0)
        word.write(str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
