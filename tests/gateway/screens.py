"""What every page has to hold at three widths: nothing scrolls sideways, and axe finds nothing serious.

With ATAA_SCREENSHOTS=FOLDER each look is also kept as a picture, `NAME-LANG-WIDTH.png`.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page

WIDTHS: Final = (320, 768, 1920)
HEIGHT: Final = 900
SERIOUS: Final = ("serious", "critical")


def axe_source() -> str:
    """axe-core's script."""
    return files("axe_core_python").joinpath("axe.min.js").read_text()


async def faults(page: Page, name: str, lang: str) -> list[Any]:
    """What is wrong with the open page, at each width, in a language: an empty list if nothing is.

    `name` is the page's in messages and file names. The page keeps its last width.
    """
    found: list[Any] = []
    direction = await page.evaluate("document.documentElement.dir")
    if direction != ("rtl" if lang == "ar" else "ltr"):
        found.append((name, "direction", direction))
    await page.evaluate(axe_source())
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": HEIGHT})
        await page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))")
        wide = await page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            found.append((name, width, "scrolls sideways", wide))
        result = await page.evaluate("axe.run()")
        assert result["passes"], name
        found += [
            (name, width, one["id"], one["nodes"][0]["html"][:200])
            for one in result["violations"]
            if one["impact"] in SERIOUS
        ]
        if folder := os.environ.get("ATAA_SCREENSHOTS"):
            await page.screenshot(path=Path(folder) / f"{name}-{lang}-{width}.png", full_page=True)
    return found
