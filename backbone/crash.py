"""Named points at which a crash test may kill this process.

`ATAA_CRASH_AT=payments.outbox.after_ack:3` sends the process SIGKILL when it reaches that point for the
third time. Without the variable, a crash point costs one comparison.
"""

from __future__ import annotations

import os
import signal

_AT, _, _PASS = os.environ.get("ATAA_CRASH_AT", "").partition(":")
_left = int(_PASS or 1)


def crash_point(name: str) -> None:
    """Kill this process if `ATAA_CRASH_AT` names this point."""
    global _left
    if name != _AT:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
