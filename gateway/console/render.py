"""Renders the pages of the console from templates, as bytes; text from people is escaped by autoescape."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from gateway.console.translations import TRANSLATIONS
from gateway.pages.languages import Voice, pick
from gateway.pages.templating import environment

_environment: Final = environment(Path(__file__).parent / "templates")


def render(template: str, texts: str, voice: Voice, **values: object) -> bytes:
    """`template` with `values`. In it, `t(key, n, **placeholders)` is a text of the page `texts`."""
    found = _environment.get_template(template)
    html = found.render(voice=voice, t=partial(text, voice, texts), **values)
    return html.encode("utf-8", "replace")


def text(voice: Voice, page: str, key: str, n: int | None = None, **holes: str) -> str:
    """The text of `key`, in the plural form for `n`, with its placeholders filled."""
    if n is not None:
        holes["n"] = voice.count(n)
    return voice.numerals(pick(TRANSLATIONS[page][voice.lang][key], voice.lang, n)).format(**holes)
