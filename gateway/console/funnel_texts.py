"""The texts of the console's page of a funnel, in English and in Arabic."""

from __future__ import annotations

from typing import Final

from gateway.pages.phrases import Translations

FUNNEL_EN: Final[Translations] = {
    "funnel": "Funnel",
    "period_hour": "This hour",
    "period_day": "24 hours",
    "period_week": "7 days",
    "period_month": "31 days",
    "all_sources": "All sources",
    "other_sources": "Other sources",
    "step_seen": "Pages seen",
    "step_opened": "Form opened",
    "step_pledged": "Pledged",
    "step_paid": "Paid",
    "of_step_before": "{percent}% of the step before",
    "funnel_table": "By source",
    "no_views": "Nothing was counted in this period.",
    "funnel_why": "Views are counted by the pages' script, without cookies and without anything about the "
    "visitor; browsers that ask not to be tracked are left out. A link may lead straight to the form, and a "
    "gift may be paid in a later period than it was pledged. The figures may be ten seconds old.",
    "refused_period_too_long": "This period has too many pledges to count at once. Choose a shorter one.",
}

FUNNEL_AR: Final[Translations] = {
    "funnel": "مسار التبرع",
    "period_hour": "هذه الساعة",
    "period_day": "24 ساعة",
    "period_week": "7 أيام",
    "period_month": "31 يومًا",
    "all_sources": "كل المصادر",
    "other_sources": "مصادر أخرى",
    "step_seen": "مشاهدات الصفحات",
    "step_opened": "فتح النموذج",
    "step_pledged": "تعهدات",
    "step_paid": "تبرعات مدفوعة",
    "of_step_before": "{percent} بالمئة من الخطوة السابقة",
    "funnel_table": "حسب المصدر",
    "no_views": "لم يُسجَّل شيء في هذه الفترة.",
    "funnel_why": "تُحسب المشاهدات بلا ملفات تعريف ارتباط وبلا أي بيانات عن الزائر، ولا يُحسب من يطلب متصفحه "
    "عدم التتبع أو لا يشغّل جافاسكربت. قد يقود الرابط إلى النموذج مباشرة، وقد يُدفع التعهد في فترة لاحقة. "
    "قد تتأخر الأرقام عشر ثوانٍ.",
    "refused_period_too_long": "في هذه الفترة تعهدات أكثر مما يمكن عدّه دفعة واحدة. اختر فترة أقصر.",
}
