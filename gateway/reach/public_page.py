"""The public page of a drive and of a creator in it, complete without script but for the texts of donors.

Caches keep the page for a minute at worst. What a donor wrote must be gone within a second once a moderator
hides it, so only the page's script shows it, from the live totals (docs/decisions/0035).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from backbone.money_text import in_numerals
from gateway.pages.languages import Voice, localised
from gateway.pages.render import render_page, whole_percent
from gateway.pages.translations import TRANSLATIONS
from gateway.reach.sources import Source
from gateway.reach.translations import TEXTS, text

Json = Mapping[str, Any]

STATES: Final = ("live", "catching_up", "frozen")


@dataclass(frozen=True, slots=True)
class PublicPage:
    """What a page shows: a drive as pledges shows it, its totals, and the creator whose page it is, if any.

    `origin` is the public address of the gateway, and `place` the creator's row of the board.
    """

    drive: Json
    totals: Json
    origin: str
    voice: Voice
    source: Source
    creator: Json | None = None
    place: Json | None = None
    teams: Sequence[Json] = ()

    @property
    def slug(self) -> str:
        """The drive's slug, as it is in addresses."""
        return quote(str(self.drive["slug"]))

    @property
    def path(self) -> str:
        """The page's path."""
        return f"/d/{self.slug}" + (f"/{quote(str(self.creator['slug']))}" if self.creator else "")

    @property
    def title(self) -> str:
        """The drive's title in the page's language."""
        return localised(self.drive.get("title"), self.voice.lang) or str(self.drive["slug"])

    @property
    def heading(self) -> str:
        """The title of links to the page: the drive's, and the creator's name."""
        return f"{self.title} · {self.creator['name']}" if self.creator else self.title

    @property
    def address(self) -> str:
        """The canonical address."""
        return self.origin + self.path

    @property
    def picture(self) -> str:
        """The address of the Open Graph picture: another one for other figures, since chats keep pictures."""
        query = {"lang": self.voice.lang, "v": str(self.totals.get("sequence", 0))}
        return f"{self.origin}/d/{self.slug}/og.png?{urlencode(query)}"

    @property
    def donate_address(self) -> str:
        """The path of the donate form, with the creator and the source."""
        credited = {"creator": str(self.creator["slug"])} if self.creator else {}
        return self.source.address(f"/donate/{self.slug}", **credited, **self.language)

    @property
    def language(self) -> dict[str, str]:
        """The parameters by which links keep the page's language and digits."""
        return {"lang": self.voice.lang, **({"digits": "arab"} if self.voice.digits == "arab" else {})}

    def summary(self) -> str:
        """What the drive has raised, in a sentence, for previews of the link."""
        raised, goal = self.money(self.totals.get("raised")), self.money(self.totals.get("goal"))
        key = "summary" if goal else "summary_without_goal"
        return text(self.voice, key, raised=raised, goal=goal, gifts=self.gifts())

    def gifts(self) -> str:
        """The number of donations, as a phrase."""
        return text(self.voice, "gifts", int(self.totals.get("donations", 0)))

    def money(self, amount: object) -> str:
        """An amount as text, empty for none."""
        if not isinstance(amount, Mapping):
            return ""
        return self.voice.money(str(amount["value"]), str(amount["currency"]))

    def render(self) -> bytes:
        """The page as HTML."""
        return render_page(
            "public.html",
            self.voice,
            self._script_data(),
            TEXTS[self.voice.lang],
            title=self.title,
            heading=self.heading,
            description=localised(self.drive.get("description"), self.voice.lang),
            address=self.address,
            picture=self.picture,
            oembed=f"{self.origin}/oembed?{urlencode({'url': self.address, 'format': 'json'})}",
            summary=self.summary(),
            test=self.drive.get("test") is True,
            drive_url=self.source.address(f"/d/{self.slug}", **self.language),
            other_language=self.source.address(self.path, **self.language | {"lang": self.voice.other}),
            creator=self.creator,
            **self._figures(),
            **self._giving(),
            **self._lists(),
        )

    def _script_data(self) -> Json:
        kept = ("gifts", "of_goal", "anonymous", "reached", "as_of", "place", *STATES, "offline")
        return {
            "drive": self.drive["id"],
            "slug": self.drive["slug"],
            "lang": self.voice.lang,
            "digits": self.voice.digits,
            "creator": self.creator and self.creator["id"],
            "source": self.source.parameters,
            "link": self.source.address("", **self.language),
            "texts": {key: TEXTS[self.voice.lang][key] for key in kept},
        }

    def _figures(self) -> Json:
        goal, state = self.money(self.totals.get("goal")), self.totals.get("state")
        as_of = str(self.totals.get("as_of", ""))
        return {
            "raised": self.money(self.totals.get("raised")),
            "of_goal": text(self.voice, "of_goal", goal=goal) if goal else "",
            "percent": whole_percent(self.totals.get("raised"), self.totals.get("goal")),
            "gifts": self.gifts(),
            "state": state if state in STATES else "frozen",
            "as_of": as_of,
            "as_of_text": self._clock_time(as_of),
        }

    def _clock_time(self, as_of: str) -> str:
        """The hour and minute in UTC: which zone the reader is in only the browser knows."""
        if not as_of:
            return ""
        shown = f"{datetime.fromisoformat(as_of):%H:%M}"
        return text(self.voice, "utc", time=in_numerals(shown, self.voice.digits))

    def _giving(self) -> Json:
        state, donate = self.drive.get("state"), TRANSLATIONS["donate"][self.voice.lang]
        noticed = state in ("paused", "closed")
        place = self.place
        return {
            "donate_url": None if state == "closed" else self.donate_address,
            "notice": donate[f"notice_{state}"] if noticed else "",
            "notice_more": donate[f"notice_{state}_more"] if noticed else "",
            "qr_url": self.source.address(f"{self.path}/qr.svg") if self.creator else None,
            "creator_raised": self.money(place["raised"]) if place else "",
            "no_gifts": not self.totals.get("donations"),
            "creator_place": text(self.voice, "place", int(place["rank"])) if place else "",
        }

    def _lists(self) -> Json:
        totals = self.totals
        return {
            "leaders": [self._leader(one) for one in totals.get("leaders", ()) if "slug" in one],
            "teams": [{"name": one["team"], "raised": self.money(one["raised"])} for one in self.teams],
            "milestones": [
                {
                    "title": localised(one["title"], self.voice.lang),
                    "amount": self.money(one["amount"]),
                    "reached": one.get("reached_at") is not None,
                }
                for one in totals.get("milestones", ())
            ],
        }

    def _leader(self, leader: Json) -> Json:
        return {
            "name": leader["name"],
            "raised": self.money(leader["raised"]),
            "url": self.source.address(f"/d/{self.slug}/{quote(str(leader['slug']))}", **self.language),
            "is_this": self.creator is not None and leader.get("creator") == self.creator["id"],
        }
