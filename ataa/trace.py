"""`ataa trace`: the history of one gift, from every service, in the order of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ataa.installation import Refused, Services


class Step(NamedTuple):
    """A step of the history; `at` is empty where only the present state is known."""

    at: str
    service: str
    text: str


async def trace(services: Services, pledge: str) -> list[Step]:
    """The history of a pledge. Raises `Unreachable`, and `Refused` where no service knows it."""
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
    notified = await services.ask("notify", "/internal/trace", gift)
    by_service = {"pledges": made, "payments": paid, "leaderboard": counted, "notify": notified}
    return in_order(by_service)


def in_order(by_service: dict[str, dict[str, Any]]) -> list[Step]:
    """The steps of all services by their moments; what is true at present comes last.

    A row of the log and a receipt have the moment of the capture at Stripe, in whole seconds. They follow
    from postings, so they are placed after the first one.
    """
    posted = min(
        (one["at"] for one in by_service["payments"]["steps"] if one["text"].startswith("posting ")),
        default="",
    )
    dated: list[tuple[str, int, Step]] = []
    present: list[Step] = []
    for place, (service, found) in enumerate(by_service.items()):
        for one in found["steps"]:
            step = Step(one["at"] or "", service, one["text"])
            if one["at"] is None:
                present.append(step)
            else:
                follows = service in ("leaderboard", "notify")
                dated.append((max(one["at"], posted) if follows else one["at"], place, step))
    return [step for _, _, step in sorted(dated, key=lambda one: one[:2])] + present


def show(steps: Sequence[Step], console: Console) -> None:
    """Print a history, a line a step."""
    table = Table(box=None, pad_edge=False)
    table.add_column("at", no_wrap=True)
    table.add_column("service", no_wrap=True)
    table.add_column("what", overflow="fold")
    for step in steps:
        table.add_row(step.at or "now", step.service, escape(step.text))
    console.print(table)
