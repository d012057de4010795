"""Renders the moderation desk; text from people is escaped by autoescape, or set by the script as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.desk.translations import TRANSLATIONS
from gateway.pages.languages import Voice, localised
from gateway.pages.templating import environment

_environment: Final = environment(Path(__file__).parent / "templates")


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
