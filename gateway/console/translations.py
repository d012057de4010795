"""Every text of the console and the login, in English and Arabic, as in `gateway.pages.translations`."""

from collections.abc import Mapping
from typing import Final

from gateway.console.funnel_texts import FUNNEL_AR, FUNNEL_EN
from gateway.console.ledger_texts import LEDGER_AR, LEDGER_EN
from gateway.console.money_texts import MONEY_AR, MONEY_EN
from gateway.console.proposal_texts import PROPOSALS_AR, PROPOSALS_EN
from gateway.console.rates_texts import RATES_AR, RATES_EN
from gateway.console.refund_texts import REFUNDS_AR, REFUNDS_EN
from gateway.console.texts import CONSOLE_AR, CONSOLE_EN
from gateway.pages.phrases import Translations

_LOGIN_EN: Final[Translations] = {
    "login": "Log in",
    "console": "Console",
    "moderation": "Moderation",
    "key": "API key",
    "key_why": "An admin or secret key. It is not kept in the browser.",
    "key_needs": "The key needs the scope {scope}.",
    "from_elsewhere": "You came from another site. If you are logged in already:",
    "continue": "continue",
    "carried": "Your session has ended. What you filled in is kept: log in to see it again and to send it.",
    "error_wrong": "This key is unknown, revoked or expired.",
    "error_forbidden": "This key may not open this page.",
    "error_slow": "Too many attempts. Please wait a minute.",
    "error_origin": "This page was open for too long. Please enter the key again.",
    "error_busy": "We cannot log you in right now. Please try again shortly.",
    "language": "العربية",
}

_LOGIN_AR: Final[Translations] = {
    "login": "تسجيل الدخول",
    "console": "لوحة الإدارة",
    "moderation": "الإشراف على الرسائل",
    "key": "مفتاح الواجهة البرمجية",
    "key_why": "مفتاح إدارة أو مفتاح سرّي، ولا نحفظه في المتصفح.",
    "key_needs": "يجب أن يملك المفتاح الصلاحية {scope}.",
    "from_elsewhere": "جئت من موقع آخر. إن كنت قد سجّلت الدخول من قبل:",
    "continue": "متابعة",
    "carried": "انتهت جلستك. ما كتبته محفوظ: سجّل الدخول لتراه من جديد وترسله.",
    "error_wrong": "هذا المفتاح غير معروف أو ملغى أو منتهي الصلاحية.",
    "error_forbidden": "لا يحق لهذا المفتاح فتح هذه الصفحة.",
    "error_slow": "محاولات كثيرة. انتظر دقيقة من فضلك.",
    "error_origin": "بقيت هذه الصفحة مفتوحة طويلًا. أدخل المفتاح من جديد من فضلك.",
    "error_busy": "تعذّر تسجيل الدخول الآن. حاول مجددًا بعد قليل من فضلك.",
    "language": "English",
}

_ROOT_EN: Final[Translations] = {
    "name": "Ataa",
    "tagline": "Live donation drives, counted to the last cent",
    "about": "Ataa is an open-source system for live donation drives: it takes pledges, collects payments "
    "and shows the total on the stream within a second. Every gift is posted to a ledger, which is compared "
    "with the payment processor's records.",
    "live": "Live now",
    "no_drives": "No drive is live at the moment.",
    "unavailable": "The list of drives is not available right now. Please try again shortly.",
    "test": "Test: no real money",
    "of_goal": "of {goal}",
    "gifts": {"zero": "no gifts yet", "one": "{n} gift", "other": "{n} gifts"},
    "progress": "Progress to the goal",
    "give": "Give",
    "overlay": "Overlay for streams",
    "for_builders": "For organisers and developers",
    "console": "Console",
    "console_more": "Create drives, follow their figures, refund gifts, and manage keys.",
    "guide": "API guide",
    "guide_more": "From the first key to the first gift, step by step.",
    "reference": "API reference",
    "reference_more": "Every route, with its fields and errors.",
    "events": "Event catalogue",
    "events_more": "What the services publish, with schemas and examples.",
    "licence": "Apache License 2.0",
    "language": "العربية",
}

_ROOT_AR: Final[Translations] = {
    "name": "عطاء",
    "tagline": "حملات تبرع مباشرة، محسوبة حتى آخر فلس",
    "about": "عطاء نظام مفتوح المصدر لحملات التبرع المباشرة: يستقبل التعهدات ويحصّل المدفوعات ويعرض المجموع "
    "على البث خلال ثانية. يُقيَّد كل تبرع في دفتر حسابات يُطابَق مع سجلات مزوّد الدفع.",
    "live": "حملات مباشرة الآن",
    "no_drives": "لا توجد حملة مباشرة في هذه اللحظة.",
    "unavailable": "قائمة الحملات غير متاحة الآن. حاول مجددًا بعد قليل من فضلك.",
    "test": "تجربة: بلا أموال حقيقية",
    "of_goal": "من {goal}",
    "gifts": {
        "zero": "لا تبرعات بعد",
        "one": "تبرع واحد",
        "two": "تبرعان",
        "few": "{n} تبرعات",
        "many": "{n} تبرعًا",
        "other": "{n} تبرع",
    },
    "progress": "التقدم نحو الهدف",
    "give": "تبرع",
    "overlay": "إعداد العرض على البث",
    "for_builders": "للمنظمين والمطورين",
    "console": "لوحة الإدارة",
    "console_more": "أنشئ الحملات، وتابع أرقامها، وأعد التبرعات، وأدر المفاتيح.",
    "guide": "دليل الواجهة البرمجية",
    "guide_more": "من أول مفتاح إلى أول تبرع، خطوة بخطوة.",
    "reference": "مرجع الواجهة البرمجية",
    "reference_more": "كل المسارات بحقولها وأخطائها.",
    "events": "فهرس الأحداث",
    "events_more": "ما تنشره الخدمات، مع المخططات والأمثلة.",
    "licence": "رخصة أباتشي 2.0",
    "language": "English",
}

TRANSLATIONS: Final[Mapping[str, Mapping[str, Translations]]] = {
    "login": {"en": _LOGIN_EN, "ar": _LOGIN_AR},
    "console": {
        "en": {**CONSOLE_EN, **FUNNEL_EN, **MONEY_EN, **PROPOSALS_EN, **LEDGER_EN, **RATES_EN, **REFUNDS_EN},
        "ar": {**CONSOLE_AR, **FUNNEL_AR, **MONEY_AR, **PROPOSALS_AR, **LEDGER_AR, **RATES_AR, **REFUNDS_AR},
    },
    "root": {"en": _ROOT_EN, "ar": _ROOT_AR},
}
"""page → language → key → text; both languages of a page have the same keys (checked by a test)."""
