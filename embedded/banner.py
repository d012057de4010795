"""The banner of the embedded run: its addresses, where its keys are, and which Stripe it charges."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Running:
    """An embedded run: its public address, its data directory and its Stripe account.

    `sandbox` is the address of the Stripe sandbox, None where a Stripe account is set; `livemode` is
    true if that account charges real cards.
    """

    url: str
    data: Path
    sandbox: str | None
    livemode: bool


def print_banner(running: Running, console: Console | None = None) -> None:
    """Print the addresses and files of `running` where standard output is a terminal, else nothing."""
    if console is None and not sys.stdout.isatty():
        return
    from rich.console import Console  # here: it takes memory as long as the process runs
    from rich.text import Text

    console = console or Console(highlight=False)
    console.print("\n[bold]Ataa · عطاء[/bold] is running; Ctrl-C stops it.\n")
    for name, value in facts(running).items():
        # A long path is left to the terminal to wrap, so that it can be copied whole.
        console.print(Text.assemble("  ", (f"{name:<13}", "bold"), value), soft_wrap=True)
    console.print()


def facts(running: Running) -> Mapping[str, str]:
    """The banner's lines by name; the addresses of a drive have `{drive}` in the place of its slug."""
    return {
        "API": f"{running.url}/docs",
        "Overlay": f"{running.url}/overlay/{{drive}}",
        "Donate page": f"{running.url}/donate/{{drive}}",
        "Keys": f"{running.data / 'keys.json'}",
        "Stripe": _stripe(running),
        "Next": 'open a drive: README, "Run it"',
    }


def _stripe(running: Running) -> str:
    if running.sandbox is not None:
        return f"the sandbox at {running.sandbox}: test cards only, no real money"
    if running.livemode:
        return "a live account: real cards are charged"
    return "a test account: test cards only, no real money"
