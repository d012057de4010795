"""The donate form in a frame of a partner's page: which pages may show it.

`/embed.js` puts the frame on the partner's page. Its address names the partner's publishable key and the
page's origin. The browser enforces the key's whole list of origins (CSP `frame-ancestors`), and the form
sends messages to that one origin only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backbone.http.problems import Unauthorized
from gateway.access.keys import Bearer, KeyRing


@dataclass(frozen=True, slots=True)
class Frame:
    """A page that may frame the form.

    `origin` is the page's, `key` its publishable key, `key_id` that key's id, and `ancestors` are all
    origins on the key's list.
    """

    origin: str
    key: str
    key_id: str
    ancestors: tuple[str, ...]


def find_frame(key_ring: KeyRing, query: Mapping[str, str], drive: Mapping[str, object]) -> Frame | None:
    """The frame that an address asks for with `key` and `origin`; None where it may not show the form.

    That is: an unknown, revoked or expired key, one that is not publishable, an origin that is not on its
    list, a test key on a live drive, or a partner that the drive takes no pledges from.
    """
    key, origin = query.get("key", ""), query.get("origin", "")
    try:
        bearer = key_ring.find(f"Bearer {key}")
    except Unauthorized:
        return None
    if bearer.kind != "publishable" or origin not in bearer.origins or not _may_pledge(bearer, drive):
        return None
    return Frame(origin, key, bearer.key_id, tuple(sorted(bearer.origins)))


def _may_pledge(bearer: Bearer, drive: Mapping[str, object]) -> bool:
    partners = drive.get("partners")
    listed = not isinstance(partners, list) or bearer.partner in (drive.get("partner"), *partners)
    return listed and (bearer.mode == "live" or drive.get("test") is True)
