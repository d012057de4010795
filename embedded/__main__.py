"""Ataa in one process: `python -m embedded` serves, `python -m embedded settings` lists the settings."""

from __future__ import annotations

import typer

from backbone.process import run_on_uvloop
from backbone.settings import describe, load, unknown_variables
from backbone.telemetry import configure_logs
from embedded.app import run
from embedded.settings import ALL_SETTINGS, OUTSIDE, EmbeddedSettings

cli = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@cli.callback(invoke_without_command=True)
def serve(context: typer.Context) -> None:
    """Serve Ataa from one process until Ctrl-C; data is kept in ATAA_DATA_DIR."""
    if context.invoked_subcommand is not None:
        return
    settings = load(EmbeddedSettings)
    configure_logs(settings.log_level, settings.log_format)
    for kind in ALL_SETTINGS:
        load(kind)
    for name in unknown_variables(ALL_SETTINGS, OUTSIDE):
        typer.echo(f"ataa: {name} is not a known setting (see make settings)", err=True)
    run_on_uvloop(run(settings))


@cli.command()
def settings() -> None:
    """List every setting: environment variable, default, meaning."""
    from rich.console import Console  # here: the process that serves needs none of it
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("variable", no_wrap=True)
    table.add_column("default", overflow="fold")
    table.add_column("meaning", min_width=24)
    for row in describe(ALL_SETTINGS):
        table.add_row(*row)
    for name, meaning in OUTSIDE.items():
        table.add_row(name, "", meaning)
    Console().print(table)


cli()
