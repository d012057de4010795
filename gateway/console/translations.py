"""Every text of the console and the login, in English and Arabic, as in `gateway.pages.translations`."""

from collections.abc import Mapping
from typing import Final

from gateway.pages.translations import Translations

_LOGIN_EN: Final[Translations] = {
    "login": "Log in",
    "console": "Console",
    "moderation": "Moderation",
    "key": "API key",
    "key_why": "An admin or secret key. It is not kept in the browser.",
    "key_needs": "The key needs the scope {scope}.",
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
    "error_wrong": "هذا المفتاح غير معروف أو ملغى أو منتهي الصلاحية.",
    "error_forbidden": "لا يحق لهذا المفتاح فتح هذه الصفحة.",
    "error_slow": "محاولات كثيرة. انتظر دقيقة من فضلك.",
    "error_origin": "بقيت هذه الصفحة مفتوحة طويلًا. أدخل المفتاح من جديد من فضلك.",
    "error_busy": "تعذّر تسجيل الدخول الآن. حاول مجددًا بعد قليل من فضلك.",
    "language": "English",
}

TRANSLATIONS: Final[Mapping[str, Mapping[str, Translations]]] = {
    "login": {"en": _LOGIN_EN, "ar": _LOGIN_AR},
}
"""page → language → key → text; both languages of a page have the same keys (checked by a test)."""
