"""`ataa rebuild leaderboard`: sums built again from the log and the stored payments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape

from ataa.amounts import amount
from ataa.installation import Services


async def rebuild(
    services: Services, drive: str | None, progress: Callable[[float], None], *, write: bool
) -> list[dict[str, Any]]:
    """Verify the log of a drive, or of all, and build its sums again; a drive whose log has a flaw is left.

    Raises `Unreachable`, and `Refused` for an unknown drive.
    """
    if drive is None:
        chosen = (await services.ask("leaderboard", "/internal/rebuild/drives", {}))["data"]
    else:
        chosen = [(await _compare(services, drive, write=False))["drive"]]
    found = []
    for number, one in enumerate(chosen):
        flaw = await _flaw_of_log(services, one)
        built = await _compare(services, one, write=write and flaw is None)
        found.append(built | {"flaw": flaw})
        progress((number + 1) / len(chosen))
    return found


async def _compare(services: Services, drive: str, *, write: bool) -> dict[str, Any]:
    found: dict[str, Any] = await services.ask(
        "leaderboard", "/internal/rebuild", {"drive": drive, "write": write}
    )
    return found


async def _flaw_of_log(services: Services, drive: str) -> str | None:
    """Why the log cannot be folded: a row, or the hash of the last one, is wrong; None if all is right.

    Totals that differ from a right log are no flaw of it: they are what is built again.
    """
    position: dict[str, Any] = {}
    while True:
        step = await services.ask("leaderboard", "/internal/audit/log", {"drive": drive, **position})
        if not step["known"] or step["of_sums"]:
            return None
        if step["flaw"] is not None:
            return str(step["flaw"])
        if step["is_end"]:
            return None
        position = step["position"]


def is_equal(built: dict[str, Any]) -> bool:
    """Whether a drive's stored sums were those built again."""
    return not (built["sums"] or built["log"] or built["flaw"])


def show(built: dict[str, Any], console: Console) -> None:
    """Print what differed of a drive, and what was done."""
    drive = built["drive"]
    if is_equal(built):
        console.print(f"{drive}: equal" + (", written anew" if built["written"] else ""))
        return
    if built["flaw"]:
        console.print(f"[red]{drive}: the log is not as it was written: {escape(built['flaw'])}[/]")
    for one in built["sums"]:
        shown = [
            amount(one[name], one["currency"]) if one["currency"] else str(one[name])
            for name in ("stored", "recounted")
        ]
        console.print(f"{drive}: {escape(one['name'])} is stored as {shown[0]}, built again it is {shown[1]}")
    for one in built["log"]:
        console.print(
            f"[red]{drive}: {one['payment_id']} is stored as {amount(one['counted'], built['currency'])},"
            f" its rows in the log add up to {amount(one['logged'], built['currency'])}[/]"
        )
    if built["written"]:
        console.print(f"{drive}: replaced; its boards are summed anew within seconds")
    elif built["log"] or built["flaw"]:
        console.print(
            f"{drive}: nothing was written. Log and payments contradict each other: restore a backup"
        )
