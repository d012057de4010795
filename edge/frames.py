"""Server-sent events, split but not decoded: they are published as they came.

Source of the format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

MAX_FRAME: Final = 1 << 20


class Frame(NamedTuple):
    """One event: its name, the sequence in its `id` (0 without), and its text with the final blank line."""

    event: str
    sequence: int
    text: bytes


class BrokenStream(Exception):
    """The response is not a stream of server-sent events."""


async def frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[Frame]:
    """The events in chunks that are cut anywhere, without comments and retry hints. Raises BrokenStream."""
    waiting = b""
    async for chunk in chunks:
        *whole, waiting = (waiting + chunk).split(b"\n\n")
        if len(waiting) > MAX_FRAME:
            raise BrokenStream(f"a frame of over {MAX_FRAME} bytes")
        for block in whole:
            event, sequence = "", 0
            for line in block.split(b"\n"):
                if line.startswith(b"event: "):
                    event = line[7:].decode()
                elif line.startswith(b"id: ") and line[4:].isdigit():
                    sequence = int(line[4:])
            if event:
                yield Frame(event, sequence, block + b"\n\n")


def gap_frame(drive: str, after: int, upto: int) -> Frame:
    """Says that the rows after sequence `after` were left out; `upto` is the last of them."""
    data = json.dumps({"after": after, "events": f"/v1/drives/{drive}/events?after={after}"})
    return Frame("gap", upto, f"event: gap\ndata: {data}\n\n".encode())
