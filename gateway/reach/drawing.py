"""The process that draws a picture: a request on standard input, the picture on standard output.

`python -m gateway.reach.drawing`. The libraries hold Python's lock for the tenths of a second that a drawing
takes, so the gateway does not call them itself. This module imports nothing of the gateway.
"""

import json
import os
import resource
import sys
from io import BytesIO
from pathlib import Path
from typing import Final

import resvg_py
import segno

FONTS: Final = Path(__file__).parent / "fonts"
CPU_S: Final = 20
"""CPU that a drawing may take before the system ends it."""


def qr_code(text: str) -> bytes:
    """A QR code of `text` as SVG, black on white with the quiet zone of ISO/IEC 18004."""
    drawn = BytesIO()
    segno.make(text, error="m", micro=False).save(drawn, kind="svg", light="#fff", border=4)
    return drawn.getvalue()


def picture(svg: str) -> bytes:
    """An SVG as PNG, its text in the project's own fonts."""
    fonts = [str(file) for file in sorted(FONTS.glob("*.ttf"))]
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, font_files=fonts))


def main() -> None:
    """Draw what standard input asks for: `{"qr": text}` or `{"picture": svg}`."""
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    request = json.load(sys.stdin)
    drawn = qr_code(request["qr"]) if "qr" in request else picture(request["picture"])
    sys.stdout.buffer.write(drawn)


if __name__ == "__main__":
    main()
