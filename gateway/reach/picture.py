"""The Open Graph picture of a drive: its title and what it has raised, as SVG to be drawn."""

from __future__ import annotations

from typing import Final

from gateway.pages.render import render_page, whole_percent
from gateway.reach.measuring import drawable, largest_size, lines
from gateway.reach.public_page import PublicPage
from gateway.reach.translations import TEXTS, text

WIDTH: Final = 1200
MARGIN: Final = 70
_LINE: Final = WIDTH - 2 * MARGIN
_TITLE_SIZES: Final = range(68, 47, -4)
_RAISED_SIZES: Final = range(120, 39, -4)
_ISOLATES: Final = {"ltr": ("\u2066", "\u2069"), "rtl": ("\u2067", "\u2069")}
"""SVG's `direction` is not drawn by resvg: isolates give each text its direction (Unicode UAX #9)."""


def picture_svg(page: PublicPage) -> str:
    """The picture of the page's drive, in the page's language; right to left in Arabic."""
    rtl = page.voice.direction == "rtl"
    title = drawable(page.title) or drawable(str(page.drive["slug"]))
    title_size = largest_size(title, _TITLE_SIZES, _LINE)
    raised, goal = page.money(page.totals.get("raised")), page.money(page.totals.get("goal"))
    filled = whole_percent(page.totals.get("raised"), page.totals.get("goal")) * _LINE // 100
    filled = max(filled, 36) if filled else 0  # as wide as its round ends
    opened, closed = _ISOLATES[page.voice.direction]
    return render_page(
        "picture.svg",
        page.voice,
        None,
        TEXTS[page.voice.lang],
        anchor="end" if rtl else "start",
        other_anchor="start" if rtl else "end",
        start=WIDTH - MARGIN if rtl else MARGIN,
        end=MARGIN if rtl else WIDTH - MARGIN,
        open=opened,
        close=closed,
        title=lines(title, title_size, _LINE, 2),
        title_size=title_size,
        raised=raised,
        raised_size=largest_size(raised, _RAISED_SIZES, _LINE),
        goal=text(page.voice, "of_goal", goal=goal) if goal else "",
        gifts=page.gifts(),
        filled=filled,
        bar_x=WIDTH - MARGIN - filled if rtl else MARGIN,
        test=page.drive.get("test") is True,
    ).decode()
