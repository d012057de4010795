"""The texts of currencies in the console: the page of exchange rates, and a drive's other currencies."""

from __future__ import annotations

from typing import Final

from gateway.pages.phrases import Translations

RATES_EN: Final[Translations] = {
    "nav_rates": "Exchange rates",
    "rates_why": "Gifts in another currency than their drive's count at the newest rate of the moment in "
    "which they are captured. What was captured keeps its rate. "
    "A rate older than seven days is not used: donors "
    "are then not offered the currency. A pair without a rate of its own is converted through the euro.",
    "rate_as_of": "Of (UTC)",
    "rate_age": {
        "zero": "less than a day old",
        "one": "{n} day old",
        "other": "{n} days old",
    },
    "rate_source": "Source",
    "rate_source_api": "Set by an administrator",
    "rate_source_ecb": "List of the European Central Bank",
    "rate_fresh": "Used",
    "rate_stale": "Not used: too old",
    "rate_none": "No rate",
    "rate_refused": "Refused: {rate}.",
    "rate_refused_stale": "It is more than seven days old.",
    "rate_refused_older": "A newer one is known.",
    "rate_refused_jump": "It differs by more than 20 %. Set it here, and confirm it, if it is right.",
    "no_rates": "There is no exchange rate yet.",
    "set_rate": "Set a rate",
    "set_again": "Set",
    "rate_from": "One unit of",
    "rate_to": "is worth, in",
    "rate_value": "Rate",
    "rate_value_hint": "Such as 3.2581.",
    "rate_moment": "Of, in UTC",
    "rate_moment_hint": "Empty: now.",
    "rate_code_hint": "Three letters, such as KWD.",
    "rate_confirm": "The rate is right, although it differs by more than 20 %",
    "save_rate": "Set the rate",
    "refused_rate_jump": "This rate differs by more than 20 % from the newest one or from one of the last "
    "day, so it is not set. Check it. If it is right, confirm it below and send it again.",
    "refused_rate_old": "This rate is more than seven days old, or older than the newest one, so it is not "
    "set.",
    "done_rate_set": "The rate is set. It holds for gifts captured from now on.",
    "currencies": "Other currencies",
    "currencies_hint": "With spaces between, such as KWD AED. Donors are offered those that have an exchange "
    "rate. Once the drive is open, more may be added and none taken away.",
    "refused_drive_field_fixed": "The drive's state does not allow this change.",
}

RATES_AR: Final[Translations] = {
    "nav_rates": "أسعار الصرف",
    "rates_why": "يُحتسب التبرع بعملة غير عملة الحملة بأحدث سعر لحظة تحصيله، وما حُصّل يبقى على سعره. "
    "لا يُستخدم سعر مضى عليه أكثر من سبعة أيام، ولا تُعرض عملته على المتبرعين حينها. "
    "وما ليس له سعر خاص يُحوَّل عن طريق اليورو.",
    "rate_as_of": "تاريخه (UTC)",
    "rate_age": {
        "zero": "منذ أقل من يوم",
        "one": "منذ يوم",
        "two": "منذ يومين",
        "few": "منذ {n} أيام",
        "many": "منذ {n} يومًا",
        "other": "منذ {n} يوم",
    },
    "rate_source": "المصدر",
    "rate_source_api": "حدّده مدير",
    "rate_source_ecb": "قائمة البنك المركزي الأوروبي",
    "rate_fresh": "مستخدَم",
    "rate_stale": "غير مستخدَم: قديم",
    "rate_none": "لا سعر",
    "rate_refused": "مرفوض: {rate}.",
    "rate_refused_stale": "مضى عليه أكثر من سبعة أيام.",
    "rate_refused_older": "يوجد سعر أحدث.",
    "rate_refused_jump": "يختلف بأكثر من 20 %. إن كان صحيحًا فحدّده هنا وأكّده.",
    "no_rates": "لا أسعار صرف بعد.",
    "set_rate": "تحديد سعر",
    "set_again": "تحديد",
    "rate_from": "الوحدة الواحدة من",
    "rate_to": "تساوي بعملة",
    "rate_value": "السعر",
    "rate_value_hint": "مثل 3.2581.",
    "rate_moment": "تاريخه بتوقيت UTC",
    "rate_moment_hint": "الآن إن تُرك فارغًا.",
    "rate_code_hint": "ثلاثة أحرف مثل KWD.",
    "rate_confirm": "السعر صحيح وإن اختلف بأكثر من 20 %",
    "save_rate": "حدّد السعر",
    "refused_rate_jump": "يختلف هذا السعر بأكثر من 20 % عن الأحدث أو عن سعر في اليوم الأخير، فلم يُحدَّد. "
    "تحقق منه، وإن كان صحيحًا فأكّده أدناه وأرسله من جديد.",
    "refused_rate_old": "مضى على هذا السعر أكثر من سبعة أيام، أو يوجد أحدث منه، فلم يُحدَّد.",
    "done_rate_set": "حُدِّد السعر، ويسري على ما يُحصَّل من الآن.",
    "currencies": "عملات أخرى",
    "currencies_hint": "بينها مسافات، مثل KWD AED. يُعرض على المتبرعين ما له سعر صرف. "
    "وبعد فتح الحملة تُضاف عملات ولا تُزال.",
    "refused_drive_field_fixed": "لا تسمح حالة الحملة بهذا التغيير.",
}
