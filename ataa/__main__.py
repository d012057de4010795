"""Operate an installation of Ataa: audit a drive, rebuild sums, trace a gift, replay dead letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ataa import audit as audits
from ataa import dead_letters
from ataa import rebuild as rebuilds
from ataa import trace as traces
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


@cli.command()
def trace(
    pledge: Annotated[str, typer.Argument(help="The pledge's id, plg_….")], as_json: Json = False
) -> None:
    """List the steps of one gift, from all services, in their order.

    From the pledge through ticket, checkout, webhooks, facts and postings to the log and the receipt.
    It shows no names, messages or addresses of donors.
    """
    steps = run(lambda services: traces.trace(services, pledge))
    if as_json:
        typer.echo(json.dumps([step._asdict() for step in steps], indent=2))
    else:
        traces.show(steps, console)


rebuild_cli = typer.Typer(no_args_is_help=True)
cli.add_typer(rebuild_cli, name="rebuild")


@rebuild_cli.callback()
def rebuild() -> None:
    """Build derived state again from what it is derived from."""


@rebuild_cli.command("leaderboard")
def rebuild_leaderboard(
    drive: Annotated[
        str | None, typer.Argument(help="The drive's id or slug; all drives without it.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Replace the stored sums.")] = False,
    as_json: Json = False,
) -> None:
    """Fold the log and the stored payments into a drive's sums, and compare them with the stored ones.

    The sums are those of the drive, its creators, donors, processor money and boards. The log is verified and
    never changed. Exits with status 1 if anything differs and was not replaced.
    """
    with _progress("rebuilding") as progress:
        built = run(lambda found: rebuilds.rebuild(found, drive, progress, write=write))
    if as_json:
        typer.echo(json.dumps(built, indent=2))
    else:
        for one in built:
            rebuilds.show(one, console)
    raise typer.Exit(0 if all(rebuilds.is_equal(one) or one["written"] for one in built) else 1)


letters_cli = typer.Typer(no_args_is_help=True)
cli.add_typer(letters_cli, name="dead-letters")

Group = Annotated[
    Literal["pledges", "payments", "leaderboard", "notify"] | None,
    typer.Option(help="Only the dead letters of this consumer group."),
]
LetterId = Annotated[str, typer.Argument(help="The id of the event, evt_….")]


@letters_cli.callback()
def letters() -> None:
    """List, show and replay the events that consumer groups gave up after their retries."""


@letters_cli.command("list")
def list_letters(group: Group = None, as_json: Json = False) -> None:
    """List dead letters, with the reason of each; `handled` are those that a replay has repaired."""
    found = run(lambda services: dead_letters.list_letters(services, group))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        dead_letters.show(found, console)


@letters_cli.command("show")
def show_letter(event: LetterId) -> None:
    """Print a dead letter as JSON, with its event."""
    typer.echo(json.dumps(run(lambda services: dead_letters.show_letter(services, event)), indent=2))


@letters_cli.command("replay")
def replay_letters(
    event: Annotated[str | None, typer.Argument(help="The id of the event, evt_….")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that their groups have not handled.")] = False,
    group: Group = None,
) -> None:
    """Publish events again on their topics, after their cause is fixed.

    Groups that have handled an event recognise it by its id, so a repeated replay changes nothing. Exits with
    status 1 if one was not published.
    """
    if (event is None) is not every:
        raise typer.BadParameter("name one event, or give --all")
    outcomes = run(lambda services: dead_letters.replay_letters(services, event, group))
    for one in outcomes:
        typer.echo(f"{one.id}: {one.text}")
    if not outcomes:
        typer.echo("No dead letters to replay.")
    raise typer.Exit(0 if all(one.done for one in outcomes) else 1)


if __name__ == "__main__":
    cli()
