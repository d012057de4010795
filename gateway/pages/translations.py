"""Every text of the pages, in English and in Arabic.

Used by the templates and, as JSON inside each page, by its scripts. A value is a sentence with
{placeholders}, or a sentence for each plural category (CLDR), chosen by `n`.
"""

from collections.abc import Mapping
from typing import Final

from gateway.pages.phrases import Translations
from gateway.pages.translations_donate import DONATE_AR, DONATE_EN, PAY_AR, PAY_EN, THANKS_AR, THANKS_EN
from gateway.pages.translations_overlay import OVERLAY_AR, OVERLAY_EN, SETUP_AR, SETUP_EN

_PROBLEM_EN: Final[Translations] = {
    "unknown_drive": "There is no such drive",
    "unknown_drive_more": "The address may be mistyped, or the drive may have another name.",
    "unknown_creator": "There is no such creator in this drive",
    "unknown_creator_more": "The address may be mistyped, or the creator may have left the drive.",
    "unavailable": "Back in a moment",
    "unavailable_more": "We cannot show this page right now. Please try again shortly.",
    "frame_refused": "The donation form cannot be shown on this page",
    "frame_refused_more": "Its key is not valid here. If this is your page, check the key and its origins.",
    "language": "العربية",
}

_PROBLEM_AR: Final[Translations] = {
    "unknown_drive": "لا توجد حملة بهذا العنوان",
    "unknown_drive_more": "ربما كُتب العنوان خطأ، أو أن للحملة اسمًا آخر.",
    "unknown_creator": "صانع المحتوى هذا ليس ضمن الحملة",
    "unknown_creator_more": "ربما كُتب العنوان خطأ، أو أنه لم يعد مشاركًا في الحملة.",
    "unavailable": "نعود بعد لحظات",
    "unavailable_more": "تعذّر عرض هذه الصفحة الآن. حاول مجددًا بعد قليل من فضلك.",
    "frame_refused": "لا يمكن عرض نموذج التبرع في هذه الصفحة",
    "frame_refused_more": "مفتاح النموذج غير صالح هنا. إن كانت الصفحة لك فتحقق من المفتاح ومن قائمة مواقعه.",
    "language": "English",
}

TRANSLATIONS: Final[Mapping[str, Mapping[str, Translations]]] = {
    "overlay": {"en": OVERLAY_EN, "ar": OVERLAY_AR},
    "setup": {"en": SETUP_EN, "ar": SETUP_AR},
    "donate": {"en": DONATE_EN, "ar": DONATE_AR},
    "thanks": {"en": THANKS_EN, "ar": THANKS_AR},
    "problem": {"en": _PROBLEM_EN, "ar": _PROBLEM_AR},
    "pay": {"en": PAY_EN, "ar": PAY_AR},
}
"""page → language → key → text; both languages of a page have the same keys (checked by a test)."""
