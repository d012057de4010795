"""`ataa audit`: takes the steps of an audit, and prints what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ataa.amounts import amount
from ataa.installation import Services

KINDS: Final = ("capture", "refund", "dispute")
REREAD_S: Final = 5.0
"""After which objects at the processor that differed are read again: their webhooks were on the way."""
MAX_REREAD: Final = 100

_NO_AMOUNT: Final = {"currency": None, "minor_units": 0}

Progress = Callable[[float], None]
"""Told the share that is done, 0 to 1."""


async def audit(services: Services, drive: str, progress: Progress, *, processor: bool) -> dict[str, Any]:
    """Audit a drive anew; its whole state. Raises `Unreachable`, and `Refused` for an unknown drive."""
    answer = await services.ask("payments", "/internal/audit/begin", {"drive": drive})
    while answer["state"]["stage"] != "done":
        answer = await services.ask("payments", "/internal/audit/step", answer["state"])
        progress(answer["progress"])
    state: dict[str, Any] = answer["state"] | {"settled": answer["settled"]}
    if processor:
        found = await _at_processor(services, state["drive"], progress)
        state["differences"] += found
        state["found"] += len(found)
    return state


async def _at_processor(services: Services, drive: str, progress: Progress) -> list[dict[str, Any]]:
    """What Stripe lists for a drive and payments lacks or has otherwise, and what only payments has.

    The stored facts are read first: whatever is recorded meanwhile is only listed.
    """
    stored = await _stored_facts(services, drive)
    expected, listed = max(len(stored), 1), 0
    found: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        after: str | None = None
        while True:
            wanted = {"drive": drive, "kind": kind, "after": after}
            page = await services.ask("payments", "/internal/audit/processor", wanted)
            listed += len(page["seen"])
            stored -= set(page["seen"])
            found |= {one["fact"]: one for one in page["differences"]}
            progress(min(listed / expected, 0.99))
            after = page["after"]
            if after is None:
                break
    progress(1.0)
    still = await _still_differing(services, list(found.values()))
    return [_difference(one) for one in still] + [
        _difference({"payment": None, "fact": one, "why": "not listed by Stripe"}) for one in sorted(stored)
    ]


async def _stored_facts(services: Services, drive: str) -> set[str]:
    found: set[str] = set()
    after: str | None = ""
    while after is not None:
        page = await services.ask("payments", "/internal/audit/facts", {"drive": drive, "after": after})
        found |= set(page["facts"])
        after = page["next"]
    return found


async def _still_differing(services: Services, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that still differ after a while; the ones past `MAX_REREAD` are taken as they were."""
    if not found:
        return []
    await asyncio.sleep(REREAD_S)
    facts = [{"kind": one["kind"], "fact": one["fact"]} for one in found[:MAX_REREAD]]
    answer = await services.ask("payments", "/internal/audit/reread", {"facts": facts})
    still = {one["fact"]: one for one in answer["differences"]}
    return [*still.values(), *found[MAX_REREAD:]]


def _difference(one: dict[str, Any]) -> dict[str, Any]:
    figures = {"processor": one["why"], "fact": one["fact"]}
    return {"payment": one["payment"], "what": "processor", "figures": figures} | _NO_AMOUNT


def show(state: dict[str, Any], console: Console) -> None:
    """Print an audit: its sums by currency, and every difference by payment."""
    sums = Table(box=None, pad_edge=False)
    for name in ("", "ledger", "processor", "totals", "held", "difference"):
        sums.add_column(name, justify="left" if not name else "right")
    for currency, row in sorted(state["sums"].items()):
        shown = [
            amount(row[name], currency) for name in ("ledger", "processor", "totals", "held", "difference")
        ]
        sums.add_row(currency, *shown)
    console.print(sums)
    log = state["log"]
    console.print(
        f"{state['payments']} payments compared; log verified to row {log['sequence']} of epoch"
        f" {log['epoch']}, head {log['hash'] or 'none'}"
    )
    if not state["settled"]:
        waiting = len(state["in_transit"]) + state["more_in_transit"]
        console.print(f"[yellow]{waiting} payments are in transit and were not compared with leaderboard.[/]")
    if not state["found"]:
        console.print("[green]No difference.[/]")
        return
    _show_differences(state, console)


def _show_differences(state: dict[str, Any], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("payment", "what", "stated"):
        table.add_column(name, overflow="fold")
    for one in sorted(state["differences"], key=lambda one: (one["payment"] is None, one["payment"] or "")):
        table.add_row(*map(escape, (one["payment"] or "the drive", one["what"], _stated(one))))
    console.print(f"[red]{state['found']} differences:[/]")
    console.print(table)
    if state["found"] > len(state["differences"]):
        console.print(f"… and {state['found'] - len(state['differences'])} more")


def _stated(difference: dict[str, Any]) -> str:
    """What each source states; numbers are money where the difference has an amount."""
    is_money = bool(difference["minor_units"]) and difference["what"] != "version"

    def shown(value: object) -> str:
        if isinstance(value, int) and is_money and difference["currency"]:
            return amount(value, difference["currency"])
        return "nothing" if value is None else str(value)

    return ", ".join(f"{name}: {shown(value)}" for name, value in difference["figures"].items())
