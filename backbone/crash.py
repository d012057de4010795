"""Named points at which a crash test may kill this process.

`ATAA_CRASH_AT=payments.outbox.after_ack:3` sends the process SIGKILL at its third pass of that
point; without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

_AT, _, _PASS = os.environ.get("ATAA_CRASH_AT", "").partition(":")
_left = int(_PASS or 1)


def crash_point(name: str) -> None:
    """Die here if `ATAA_CRASH_AT` says so."""
    global _left
    if name != _AT:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
