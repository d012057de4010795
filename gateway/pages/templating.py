"""The template engine of all pages. Text is escaped, and a name that a template does not get is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.pages.assets import asset_url

_SHARED: Final = Path(__file__).parent / "templates"


def environment(*folders: Path) -> Environment:
    """An environment that looks for templates in `folders`, then in those of the pages."""
    found = Environment(
        loader=FileSystemLoader([*folders, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["asset"] = asset_url
    found.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    return found
