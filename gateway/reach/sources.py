"""Where a visitor comes from, as the address of a page states it: a platform, a campaign, a referrer.

Links are typed, translated and shortened by people. One source is therefore written in one way only, so that
a board of sources has one row for `TikTok`, `tiktok.com` and `tt`, and nobody can fill it with long or
invisible names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlencode, urlsplit

MAX_PLATFORM: Final = 32
MAX_CAMPAIGN: Final = 64
"""Characters. Pledges takes up to 64 and 128."""
MAX_REFERRER: Final = 255

PARAMETERS: Final = (
    "platform",
    "campaign",
    "utm_source",
    "utm_campaign",
    "hashtag",
    "story",
    "ref",
    "referrer",
)
"""The parameters of a link that name its source."""

_SAME: Final = {
    "tt": "tiktok", "ig": "instagram", "insta": "instagram", "yt": "youtube", "youtu.be": "youtube",
    "twitter": "x", "t.co": "x", "fb": "facebook", "snap": "snapchat", "wa": "whatsapp", "wa.me": "whatsapp",
    "tg": "telegram", "t.me": "telegram",
}  # fmt: skip
"""Other names of a platform."""
_KEPT: Final = frozenset("._-")
_AROUND: Final = re.compile(r"^((?:www|m|vm)\.)?(.+?)(\.com)?$")
_ADDRESS: Final = re.compile(r"\s*https?://([^/?#]*)", re.IGNORECASE)
_HOST: Final = re.compile(r"[a-z0-9._:\[\]-]+", re.ASCII)


class Source(NamedTuple):
    """A platform and a campaign, each None where the link does not name one."""

    platform: str | None = None
    campaign: str | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of a link that names this source."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    @property
    def key(self) -> str:
        """One text for both, as the boards of sources name them; empty for no source."""
        platform = self.platform or ""
        return platform if self.campaign is None else f"{platform}/{self.campaign}"

    @classmethod
    def of_key(cls, key: str) -> Source:
        """The source with this `key`."""
        platform, slash, campaign = key.partition("/")
        return cls(platform or None, campaign if slash else None)

    def address(self, path: str, **more: str) -> str:
        """`path` with `more` parameters and those of the source."""
        query = urlencode({**more, **self.parameters})
        return f"{path}?{query}" if query else path


def source_of(query: Mapping[str, str]) -> Source:
    """The source that the parameters of a link name; parameters without a usable character name none.

    The platform is `platform`, else `utm_source`, else `ref`: a name, a host, or an address of the platform.
    The campaign is `campaign`, else `utm_campaign`, else `hashtag`, else `story`.
    """
    platform = _first(query, ("platform", "utm_source", "ref"), MAX_PLATFORM)
    campaign = _first(query, ("campaign", "utm_campaign", "hashtag", "story"), MAX_CAMPAIGN)
    return Source(_platform(platform) if platform else None, campaign or None)


def pledge_source(query: Mapping[str, str]) -> dict[str, str] | None:
    """The `source` of a pledge that a donor makes from a link with these parameters; None for no source."""
    referrer = referrer_of(query)
    found = {**source_of(query).parameters, **({"referrer": referrer} if referrer else {})}
    return found or None


def referrer_of(query: Mapping[str, str]) -> str | None:
    """The origin of the page that linked here (`referrer`), without its path; None unless it is http(s)."""
    try:
        parts = urlsplit(query.get("referrer", "")[:2048])
        host, _ = parts.hostname, parts.port  # raises for a port that is none
    except ValueError:
        return None
    place = parts.netloc.rpartition("@")[2].lower()
    origin = f"{parts.scheme}://{place}"
    usable = parts.scheme in ("http", "https") and host and _HOST.fullmatch(place)
    return origin if usable and len(origin) <= MAX_REFERRER else None


def _first(query: Mapping[str, str], names: tuple[str, ...], most: int) -> str:
    return next((found for name in names if (found := _normalised(query.get(name, ""), most))), "")


def _normalised(text: str, most: int) -> str:
    """Letters and digits of any script in lower case, with single hyphens for everything between them."""
    address = _ADDRESS.match(text)
    named = text if address is None else address[1]
    folded = unicodedata.normalize("NFKC", named[: 4 * most]).casefold()
    kept = "".join(one if one.isalnum() or one in _KEPT else _separator(one) for one in folded)
    plain = unicodedata.normalize("NFKC", kept)
    return "-".join(filter(None, plain.split("-")))[:most].strip("._-")


def _separator(character: str) -> str:
    """Marks and invisible characters vanish; spaces and signs separate."""
    return "" if unicodedata.category(character)[0] in "MC" else "-"


def _platform(name: str) -> str:
    """The platform without what surrounds its name in a host; applied until nothing changes."""
    found = _AROUND.sub(r"\2", name).strip("._-") or name
    found = _SAME.get(name) or _SAME.get(found) or found
    return found if found == name else _platform(found)
