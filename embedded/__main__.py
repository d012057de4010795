"""Ataa in one process: `python -m embedded` serves, `python -m embedded settings` lists the settings."""

from __future__ import annotations

import asyncio
import gc

import typer
import uvloop
from rich.console import Console
from rich.table import Table

from backbone.settings import describe, load, stray
from backbone.telemetry import configure_logs
from embedded.app import run
from embedded.settings import ALL_SETTINGS, OUTSIDE, EmbeddedSettings

cli = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@cli.callback(invoke_without_command=True)
def serve(context: typer.Context) -> None:
    """Serve Ataa from this one process until Ctrl-C; data is kept in ATAA_DATA_DIR."""
    if context.invoked_subcommand is not None:
        return
    settings = load(EmbeddedSettings)
    configure_logs(settings.log_level)
    for kind in ALL_SETTINGS:
        load(kind)
    for name in stray(ALL_SETTINGS, OUTSIDE):
        typer.echo(f"ataa: {name} is not a setting (see make settings)", err=True)
    # What was imported lives as long as the process; rows and events die young. A collection walks
    # everything that is not frozen, and the default looks every 700 allocations.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings))


@cli.command()
def settings() -> None:
    """List every setting: the environment variable, its default, what it means."""
    table = Table("variable", "default", "meaning", box=None, pad_edge=False)
    for row in describe(ALL_SETTINGS):
        table.add_row(*row)
    for name, meaning in OUTSIDE.items():
        table.add_row(name, "", meaning)
    Console().print(table)


cli()
