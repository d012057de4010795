"""Why a donor's name or message is held for a moderator. Pure functions of the texts and the drive's setting.

`off` holds nothing; `filtered` holds what does not pass the filters; `all` holds every text, but for those
that pass the filters of a gift below `auto_approve_below`. In every mode a link is shown only once a
moderator has approved it (`donor_texts.displayed`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from services.pledges.donor_texts import visible
from services.pledges.links import has_link
from services.pledges.moderation.contacts import has_address, has_phone
from services.pledges.moderation.folding import fold, joined
from services.pledges.moderation.word_list import COMMON, blocked_words

Mode = Literal["off", "filtered", "all"]
Reason = Literal["mode", "link", "phone", "address", "word", "blocked_word", "hidden_characters", "too_long"]
Field = Literal["name", "message"]

MAX_FOLDED: Final = 400
"""A text that is longer than this in its normalised letters is held without being searched.

So no text takes longer to judge than one of this length. A message has 280 letters, and hardly any of them
becomes several; ﷺ becomes 18.
"""

_OVERRIDE: Final = "[\u202d\u202e]"
_ZERO_WIDTH: Final = "[\xad\u200b\u2060-\u2064\ufeff\U000e0020-\U000e007e]"
_HIDDEN: Final = re.compile(
    f"{_OVERRIDE}|(?<=[^\\W\\d_]){_ZERO_WIDTH}+(?=[^\\W\\d_])|(?<=[A-Za-z])[\u200c\u200d]+(?=[A-Za-z])"
)
"""Characters that reverse the line, or that split a word for a filter and not for a reader."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a drive is moderated; `auto_approve_below` is in the drive's minor units."""

    mode: Mode = "filtered"
    auto_approve_below: int | None = None
    blocked_words: Sequence[str] = ()


def held_texts(texts: Mapping[Field, str | None], amount: int, setting: Setting) -> dict[str, list[Reason]]:
    """The fields to be held, each with its reasons; empty where all may be shown at once.

    `texts` has the visible fields: an anonymous donor's name is not among them. `amount` is the gift's, in
    minor units.
    """
    if setting.mode == "off":
        return {}
    sent = {field: text for field, text in texts.items() if text and visible(text)}
    found: dict[str, list[Reason]] = {
        field: reasons for field, text in sent.items() if (reasons := _reasons(text, setting))
    }
    if setting.mode == "filtered":
        return found
    below = setting.auto_approve_below
    if not found and below is not None and amount < below:
        return {}
    return {field: found.get(field, ["mode"]) for field in sent}


def _reasons(text: str, setting: Setting) -> list[Reason]:
    """Why a text does not pass the filters; empty if it passes."""
    seen = visible(text)
    folded = fold(seen)
    if len(folded) > MAX_FOLDED:
        return ["too_long"]
    checks: tuple[tuple[Reason, bool], ...] = (
        ("link", has_link(seen) or _has_spelled_link(folded)),
        ("phone", has_phone(folded)),
        ("address", has_address(folded)),
        ("word", COMMON.is_in(folded)),
        ("blocked_word", bool(setting.blocked_words) and blocked_words(setting.blocked_words).is_in(folded)),
        ("hidden_characters", not text.isascii() and _HIDDEN.search(text) is not None),
    )
    return [reason for reason, holds in checks if holds]


def _has_spelled_link(folded: str) -> bool:
    together = joined(folded)
    return together != folded and has_link(together)
