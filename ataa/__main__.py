"""Operate an installation of Ataa: audit a drive, rebuild sums, trace a gift, replay dead letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ataa import audit as audits
from ataa.installation import CommandSettings, Refused, Services, Unreachable, services
from backbone.settings import load

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, name="ataa")


@cli.callback()
def ataa() -> None:
    """Operate an installation of Ataa: audit a drive, rebuild sums, trace a gift, replay dead letters.

    The services are those that ATAA_INTERNAL_SECRET and ATAA_URL_… name, else those that run on this machine
    with their data in ATAA_DATA_DIR (make run, make stack).
    """


console: Final = Console(highlight=False, soft_wrap=True)
Result = TypeVar("Result")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def run(work: Callable[[Services], Coroutine[Any, Any, Result]]) -> Result:
    """Run `work` with the installation's services; what cannot be reached exits with status 2."""

    async def with_services() -> Result:
        async with services(load(CommandSettings)) as found:
            return await work(found)

    try:
        return asyncio.run(with_services())
    except (Unreachable, Refused) as error:
        typer.echo(f"ataa: {error}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def _progress(label: str) -> Iterator[Callable[[float], None]]:
    """A progress bar on standard error, where that is a terminal."""
    shown = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=shown, transient=True, disable=not shown.is_terminal) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda done: bar.update(task, completed=done)


@cli.command()
def audit(
    drive: Annotated[str, typer.Argument(help="The drive's id or slug.")],
    as_json: Json = False,
    processor: Annotated[
        bool, typer.Option("--processor", help="Also compare with Stripe's lists; may take minutes.")
    ] = False,
) -> None:
    """Compare ledger, payments, drive log, totals and processor of a drive, payment by payment.

    Nothing stored is trusted: facts, hashes and sums are computed again. Exits with status 1 if anything
    differs, with 2 if the audit could not be made.
    """
    with _progress(f"auditing {drive}") as progress:
        state = run(lambda found: audits.audit(found, drive, progress, processor=processor))
    if as_json:
        typer.echo(json.dumps(state, indent=2))
    else:
        audits.show(state, console)
    raise typer.Exit(1 if state["found"] else 0)


if __name__ == "__main__":
    cli()
