"""`ataa trace`: the story of one gift, from every service, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from ataa.installation import Refused, Services


class Told(NamedTuple):
    """A step of the story; `at` is empty for what is known of the present only."""

    at: str
    service: str
    text: str


async def trace(services: Services, pledge: str) -> list[Told]:
    """The story of a pledge. Raises `Unreachable`, and `Refused` where no service knows it."""
    made = await services.ask("pledges", "/internal/trace", {"pledge": pledge})
    paid = await services.ask("payments", "/internal/trace", {"pledge": pledge})
    if not (made["known"] or paid["known"]):
        raise Refused("No such pledge.")
    gift = {
        "pledge": pledge,
        "drive": paid["drive"] or made["drive"],
        "payments": sorted({*made["payments"], *paid["payments"]}),
    }
    counted = await services.ask("leaderboard", "/internal/trace", gift)
    thanked = await services.ask("notify", "/internal/trace", gift)
    stories = {"pledges": made, "payments": paid, "leaderboard": counted, "notify": thanked}
    return in_order(stories)


def in_order(stories: dict[str, dict[str, Any]]) -> list[Told]:
    """The steps of all services by their moments; what is true at present comes last.

    A row of the log and a receipt have the moment of the capture at Stripe, in whole seconds. They follow
    from postings, so they are told after the first one.
    """
    posted = min(
        (one["at"] for one in stories["payments"]["steps"] if one["text"].startswith("posting ")), default=""
    )
    dated: list[tuple[str, int, Told]] = []
    present: list[Told] = []
    for place, (service, story) in enumerate(stories.items()):
        for one in story["steps"]:
            told = Told(one["at"] or "", service, one["text"])
            if one["at"] is None:
                present.append(told)
            else:
                follows = service in ("leaderboard", "notify")
                dated.append((max(one["at"], posted) if follows else one["at"], place, told))
    return [told for _, _, told in sorted(dated, key=lambda one: one[:2])] + present


def show(story: Sequence[Told], console: Console) -> None:
    """Print a story, a line a step."""
    table = Table(box=None, pad_edge=False)
    table.add_column("at", no_wrap=True)
    table.add_column("service", no_wrap=True)
    table.add_column("what", overflow="fold")
    for told in story:
        table.add_row(told.at or "now", told.service, told.text)
    console.print(table)
