"""The texts of the overlay and of its setup page, in English and in Arabic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.pages.translations import Translations

OVERLAY_EN: Final[Translations] = {
    "live": "Live",
    "catching_up": "Catching up",
    "frozen": "Figures paused",
    "offline": "Reconnecting",
    "starting": "Connecting",
    "as_of": "as of {time}",
    "of_goal": "of {goal}",
    "goal": "Goal",
    "goal_reached": "Goal reached",
    "to_go": "{money} to go",
    "leaders": "Top creators",
    "recent": "Latest gifts",
    "anonymous": "Anonymous",
    "with_creator": "with {name}",
    "gifts": {"zero": "No gifts yet", "one": "{n} gift", "other": "{n} gifts"},
    "a_minute": {"one": "{n} a minute", "other": "{n} a minute"},
    "missed_gifts": {"one": "+{n} gift while away", "other": "+{n} gifts while away"},
    "missed_gifts_over": {"one": "Over {n} gift while away", "other": "Over {n} gifts while away"},
    "burst": {"one": "+{n} gift in {time}", "other": "+{n} gifts in {time}"},
    "burst_seconds": {"one": "{n} s", "other": "{n} s"},
    "burst_minutes": {"one": "{n} min", "other": "{n} min"},
    "milestones": "Milestones",
    "milestone_reached": "Milestone reached",
    "match_double": "{sponsor} doubles every gift",
    "match_share": "{sponsor} adds {percent} to every gift",
    "match_left": "{money} left to match",
}

OVERLAY_AR: Final[Translations] = {
    "live": "مباشر",
    "catching_up": "يجري التحديث",
    "frozen": "الأرقام متوقفة",
    "offline": "نعيد الاتصال",
    "starting": "جارٍ الاتصال",
    "as_of": "حتى {time}",
    "of_goal": "من {goal}",
    "goal": "الهدف",
    "goal_reached": "اكتمل الهدف",
    "to_go": "بقي {money}",
    "leaders": "أعلى صنّاع المحتوى",
    "recent": "آخر التبرعات",
    "anonymous": "فاعل خير",
    "with_creator": "مع {name}",
    "gifts": {
        "zero": "لا تبرعات بعد",
        "one": "تبرع واحد",
        "two": "تبرعان",
        "few": "{n} تبرعات",
        "many": "{n} تبرعًا",
        "other": "{n} تبرع",
    },
    "a_minute": {"one": "{n} في الدقيقة", "other": "{n} في الدقيقة"},
    "missed_gifts": {
        "one": "تبرع واحد أثناء الغياب",
        "two": "تبرعان أثناء الغياب",
        "few": "{n} تبرعات أثناء الغياب",
        "many": "{n} تبرعًا أثناء الغياب",
        "other": "{n} تبرع أثناء الغياب",
    },
    "missed_gifts_over": {
        "one": "أكثر من تبرع أثناء الغياب",
        "two": "أكثر من تبرعين أثناء الغياب",
        "few": "أكثر من {n} تبرعات أثناء الغياب",
        "many": "أكثر من {n} تبرعًا أثناء الغياب",
        "other": "أكثر من {n} تبرع أثناء الغياب",
    },
    "burst": {
        "zero": "+{n} تبرع خلال {time}",
        "one": "+{n} تبرع خلال {time}",
        "two": "تبرعان خلال {time}",
        "few": "+{n} تبرعات خلال {time}",
        "many": "+{n} تبرعًا خلال {time}",
        "other": "+{n} تبرع خلال {time}",
    },
    "burst_seconds": {
        "one": "ثانية",
        "two": "ثانيتين",
        "few": "{n} ثوانٍ",
        "many": "{n} ثانية",
        "other": "{n} ثانية",
    },
    "burst_minutes": {
        "one": "دقيقة",
        "two": "دقيقتين",
        "few": "{n} دقائق",
        "many": "{n} دقيقة",
        "other": "{n} دقيقة",
    },
    "milestones": "المحطات",
    "milestone_reached": "بلغنا محطة جديدة",
    "match_double": "كل تبرع يتضاعف بدعم من {sponsor}",
    "match_share": "يُضاف إلى كل تبرع {percent} من قيمته بدعم من {sponsor}",
    "match_left": "بقي {money} للمضاعفة",
}
