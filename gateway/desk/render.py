"""Renders the moderation desk; text from people is escaped by autoescape, or set by the script as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.desk.translations import TRANSLATIONS
from gateway.pages.assets import asset_url
from gateway.pages.languages import Voice, localised

_HERE: Final = Path(__file__).parent

_environment: Final = Environment(
    loader=FileSystemLoader([_HERE / "templates", _HERE.parent / "pages" / "templates"]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals["asset"] = asset_url


def page(voice: Voice, drive: Mapping[str, Any], csrf: str, other_language: str) -> bytes:
    """The desk of a drive."""
    texts = TRANSLATIONS[voice.lang]
    html = _environment.get_template("desk.html").render(
        voice=voice,
        drive=drive,
        title=localised(drive["title"], voice.lang),
        csrf=csrf,
        other_language=other_language,
        t=texts,
        texts=json.dumps(texts, ensure_ascii=False),
    )
    return html.encode("utf-8", "replace")
