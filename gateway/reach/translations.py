"""Every text of the public pages and of their pictures, in English and in Arabic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gateway.pages.languages import Voice, pick
from gateway.pages.phrases import Translations
from gateway.pages.translations import TRANSLATIONS

_EN: Final[Translations] = {
    "of_goal": "of {goal}",
    "gifts": {"zero": "No gifts yet", "one": "{n} gift", "other": "{n} gifts"},
    "raised": "raised",
    "give": "Give now",
    "give_with": "Give with {name}",
    "place": "Rank {n} among all creators",
    "whole_drive": "See the whole drive",
    "milestones": "Milestones",
    "reached": "reached",
    "leaders": "Top creators",
    "teams": "Teams",
    "recent": "Latest gifts",
    "no_gifts": "No gifts yet. Be the first to give.",
    "needs_script": "The latest gifts are shown with JavaScript only.",
    "anonymous": "Anonymous",
    "live": "Live",
    "catching_up": "Catching up",
    "frozen": "Figures paused",
    "offline": "No connection",
    "as_of": "as of {time}",
    "utc": "{time} UTC",
    "qr": "QR code of this link",
    "summary": "{raised} raised of {goal}. {gifts}.",
    "summary_without_goal": "{raised} raised. {gifts}.",
    "test_mode": "Test mode: no money moves",
    "language": "العربية",
}

_AR: Final[Translations] = {
    "of_goal": "من {goal}",
    "gifts": TRANSLATIONS["overlay"]["ar"]["gifts"],
    "raised": "جُمعت حتى الآن",
    "give": "تبرع الآن",
    "give_with": "تبرع مع {name}",
    "place": "المركز {n} بين صنّاع المحتوى",
    "whole_drive": "شاهد الحملة كاملة",
    "milestones": "محطات الحملة",
    "reached": "تحققت",
    "leaders": "أعلى صنّاع المحتوى",
    "teams": "الفِرَق",
    "recent": "آخر التبرعات",
    "no_gifts": "لا تبرعات بعد. كن أول المتبرعين.",
    "needs_script": "تظهر آخر التبرعات عند تفعيل جافاسكربت فقط.",
    "anonymous": "فاعل خير",
    "live": "مباشر",
    "catching_up": "يجري التحديث",
    "frozen": "الأرقام متوقفة",
    "offline": "لا يوجد اتصال",
    "as_of": "حتى {time}",
    "utc": "{time} بتوقيت غرينتش",
    "qr": "رمز QR لهذا الرابط",
    "summary": "جُمع {raised} من {goal}. {gifts}.",
    "summary_without_goal": "جُمع {raised}. {gifts}.",
    "test_mode": "وضع التجربة: لا تُحوَّل أي أموال",
    "language": "English",
}

TEXTS: Final[Mapping[str, Translations]] = {"en": _EN, "ar": _AR}
"""language → key → text; both languages have the same keys (checked by a test)."""


def text(voice: Voice, key: str, n: int | None = None, **holes: str) -> str:
    """The text of `key`, in the plural form for `n`, with its placeholders filled."""
    if n is not None:
        holes["n"] = voice.count(n)
    return pick(TEXTS[voice.lang][key], voice.lang, n).format(**holes)
