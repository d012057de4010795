"""What starts an overlay where the streaming tool runs before the server answers.

The local file is saved on the streamer's computer and is the source's page: it loads the overlay in a frame,
hidden until the overlay reports that it runs (`local_file.js`), and loads it again when the reports end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from backbone.http.fields import REFERENCE
from gateway.pages.headers import Headers
from gateway.pages.languages import choose_voice, localised
from gateway.pages.render import LAYOUTS, SIZES, THEMES, Title, overlay_parts, render_page

_KNOWN: Final = {"digits": ("latn", "arab"), "theme": THEMES, "layout": LAYOUTS, "size": SIZES}

_CREATOR: Final = re.compile(REFERENCE, re.ASCII)


def local_file(origin: str, drive_slug_or_id: str, title: Title, query: Mapping[str, str]) -> bytes:
    """The file for the overlay of `query` (as for `overlay_page`, known values only) at `origin`."""
    voice = choose_voice(query, "", title)
    asked = {"parts": ",".join(overlay_parts(query.get("parts", ""))), "lang": voice.lang}
    asked |= {name: query[name] for name, known in _KNOWN.items() if query.get(name) in known}
    if _CREATOR.fullmatch(query.get("creator", "")):
        asked["creator"] = query["creator"]
    address = f"{origin}/overlay/{quote(drive_slug_or_id)}?{urlencode(asked, safe=',')}"
    shown = localised(title, voice.lang) or drive_slug_or_id
    return render_page("local_file.html", voice, None, {}, title=shown, address=address)


def local_file_headers(drive_slug_or_id: str) -> Headers:
    """Headers with which every browser saves the file, and none shows it as a page of the gateway."""
    name = f"ataa-overlay-{drive_slug_or_id}.html"
    return [
        (b"content-type", b"application/octet-stream"),
        (b"content-disposition", f'attachment; filename="{name}"'.encode("ascii")),
        (b"content-security-policy", b"default-src 'none'; sandbox; frame-ancestors 'none'"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]


def waiting_page(query: Mapping[str, str]) -> bytes:
    """The transparent page of an overlay that cannot be served at the moment."""
    return render_page("waiting.html", choose_voice(query, "", None), None, {})
