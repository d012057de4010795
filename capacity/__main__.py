"""`python -m capacity`: computes the tables of docs/capacity.md, and measures what they are computed from."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from capacity import document as page
from capacity.inputs import FILE, load
from capacity.measurement import NoStack
from capacity.measurement import measure as measure_stack

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def capacity() -> None:
    """What a load needs in replicas, partitions, brokers, disks and money."""


@app.command()
def plan(
    inputs: Annotated[Path, typer.Option(help="The costs, limits, prices and loads.")] = FILE,
) -> None:
    """Print the plan for the loads of a file of inputs."""
    typer.echo(page.render(load(inputs)))


@app.command()
def document() -> None:
    """Write the plan into docs/capacity.md."""
    text = page.DOCUMENT.read_text(encoding="utf-8")
    page.DOCUMENT.write_text(page.insert(text, page.render(load())), encoding="utf-8")


@app.command()
def measure(
    data_dir: Annotated[
        Path, typer.Option(envvar="ATAA_DATA_DIR", help="Data directory of the running stack.")
    ] = Path(".ataa"),
    gifts: Annotated[int, typer.Option(min=10, help="Donations to make.")] = 5_000,
) -> None:
    """Donate on the running stack; print the bytes and the CPU that one donation costs."""
    try:
        typer.echo(json.dumps(asyncio.run(measure_stack(data_dir, gifts)), indent=2))
    except NoStack as reason:
        typer.echo(f"capacity: {reason}", err=True)
        raise typer.Exit(1) from reason


if __name__ == "__main__":
    app()
