"""Texts that a moderator has to see, disguised in the usual ways, and innocent ones that look similar."""

from __future__ import annotations

import sys
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pledges.donor_texts import visible
from services.pledges.moderation.filters import MAX_FOLDED, Setting, held_texts
from services.pledges.moderation.folding import fold, joined, readings
from services.pledges.moderation.word_list import COMMON, blocked_words
from tests.pledges.test_donor_texts import CHANGED, LINKS, NAMES

ABUSE = """
fuck|FUCK you|fuuuuck|f u c k|f.u.c.k|f-u-c-k|fu.ck|f*ck|f***|ｆｕｃｋ|𝓯𝓾𝓬𝓴|fυck|fuсk|motherfucker
sh!t|sh1t|$hit|b1tch|a$$hole|n1gger|Fúck|kill yourself|heil hitler
شرموطة|شَرْمُوطَة|شـــرمـــوطة|شرموووطة|ش ر م و ط ة|والشرموطة|يا شرموطه|شرموطتك|ﺷﺮﻣﻮﻃﺔ|قحبة|القحبة|قحبه
كس أمك|كس امك|كسمك|ڪسمك|نيك أمك|منیوک|طيزك|يا كلب|ابن الكلب|لعنة الله عليك|كازينو
sharmoo6a|sharmouta|charmouta|5ara|khara|3ars|a7a|kos omak|kosommak|9a7ba|ka7ba|yel3an
fu ck|sh it|f uc k|f#ck|s&x|fvck|ꜰᴜᴄᴋ|ƒuck|fսck|🅵🆄🅲🅺|🇫🇺🇨🇰|🇫 🇺 🇨 🇰|f̶u̶c̶k̶
f.u_c-k|fⓤck|شرمو6ة|شرمو٦ة|ق7بة|كـ س أمـ ك|ك.س.م.ك|ش_ر_م_و_ط_ة|ksmk|shrmo6a
"""
CONTACTS = """
0501234567|٠٥٠١٢٣٤٥٦٧|۰۵۰۱۲۳۴۵۶۷|050 123 4567|+966 50 123 4567|0 5 0 1 2 3 4 5 6 7|o5o1234567|(050)-123-4567
0️⃣5️⃣0️⃣1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣|me@gmail|me at gmail|layla at gmail dot com|layla@example.org
٠٥٠-١٢٣-٤٥٦٧|٠٥٠٫١٢٣٫٤٥٦٧|٠٥٠،١٢٣،٤٥٦٧|050,123,4567|050~123~4567|05Ol234567|0 5 0 l 2 3 4 5 6 7
⓪⑤⓪①②③④⑤⑥⑦|𝟎𝟓𝟎𝟏𝟐𝟑𝟒𝟓
zero five zero one two three four five six seven|صفر خمسة صفر واحد اثنين ثلاثة أربعة خمسة ستة سبعة
layla[at]gmail[dot]com|layla (at) gmail|layla-at-gmail|layla＠gmail.com
me@proton|t.me/evil|wa.me/966501234567|wa.me
.evil.com|evil,com|evil·com|evil•com|evil٫com|evil،com|e v i l . c o m|e v i l dot c o m|hxxp://evil
12 Main Street|شارع الملك فهد 12|شقة 5|P.O. Box 123|ص.ب 1234|صندوق بريد 77
"""
INNOCENT = """
Scunthorpe|Penistone|Cockburn|Dickinson|Essex|Sussex|Middlesex|Assad|Hassan|Cassandra|class|Matsushita|Lipschitz
Dick Van Dyke|Arsenal|cocktail|Shitake|Ashit Patel|Shital|Swati|therapist|Fagan|Phuc|Nguyen Phuc
Zebra|Nicky|Yasser
خولة|خولة بنت الأزور|زبيدة|الزبير|كساء|كسوة الشتاء|كأس|اكسفورد|بكس|الكس|بنيك|نيكول|نيك|عنيزة|قحطان|الطحان|طيب
فاطمة|شرم الشيخ|لوط|كلبهار|حيوانات أليفة|محمد|في سبيل الله|لكل طفل بردان|سبحان الله وبحمده|الله يرزقكم|بيت لحم
حي على الصلاة|رمضان 1447|سورة 2 آية 255|من 5 أطفال
Fatima|Khawla|3omar|7abibi|a7med|Ma7moud|mashallah 3alaikom|kosovo|From the 12 of us on the road to hope
10 000 000|1000000|10,000,000|2026-11-27|27/11/2026|2019-2024|3:185|For 20 families in Gaza|5 * 4|****
"""

ORDINARY = """
صلى الله على محمد ﷺ
اللهم صل وسلم على نبينا محمد ﷺ وعلى آله وصحبه أجمعين
السلام عليكم ورحمة الله وبركاته
بارك الله فيكم وفي أموالكم وأهليكم
ربنا يجعله في ميزان حسناتكم
عن روح أمي الغالية رحمها الله
عن والدي ووالدتي وزوجتي وأولادي
صدقة جارية عن المرحوم محمد بن أحمد العلي
إهداء إلى أطفال غزة
من طلاب الصف 5 في مدرسة النور
لا اله الا الله محمد رسول الله
كل عام وأنتم بخير
يا رب تقبل منا ومنكم صالح الأعمال
شكرا لكم يا أبطال
اللهم اشف مرضانا ومرضى المسلمين
كسوة الشتاء لـ 12 عائلة
في سبيل الله تعالى 🤍
زكاة المال 1447هـ
سنة ١٤٤٧ هـ
من أجل أهلنا في السودان واليمن
لو كل واحد تبرع بدولار
واحد اثنان ثلاثة هيا نتبرع
من 3 إخوة و2 أخوات
قال تعالى: (وَمَا تُنفِقُوا مِنْ خَيْرٍ فَلِأَنفُسِكُمْ) البقرة 272
البقرة ٢:٢٦١
2:255, 3:185, 4:36
أنا من مصر وأحب فلسطين
حي على الفلاح
هذا من فضل ربي
Keep warm everyone, love from Oman
From all of us at the office: Tom, Dick & Harry
R&B fans for winter
Q&A with Ahmed
AT&T team
Black Friday? No: Give-day!
For my dad, who passed in 2019-2020
2026-11-27 12:30 see you
27/11/2026 at 18:00
In memory of Ali (1950-2020)
1,000,000 thanks
12,345,678 reasons to give
100% for the kids
1+1=2, we are one
I am so in to it, go on, do it
It is up to us to do so
So do I, as is my way
We do it as it is to be
One, two, three, go!
one two three let's go
Class 5A, room 12, Mr. Smith
St. Mary's school
Team #42 <3
@sara and @omar
$5 from me, $10 from him
U.S.A. and U.K. together
e.g. coats, i.e. warm ones
Thanks Abo Fella!!! ❤️❤️❤️
🇸🇦🇰🇼🇦🇪 together
🇪🇬 ❤ 🇵🇸
Saudi 🇸🇦 Kuwait 🇰🇼
Jazakum Allahu khairan
Allah ybarek feekom
Alhamdulillah 3ala kol 7al
ya rab te2bal menna
ma sha2 allah 3alekom ya shabab
sba7 el 5er ya gama3a
ana men masr w ba7eb falasteen
rabena ye2awekom
mabrook 3aleikom
you,me and everyone
for food, net of fees
J . K . R
hello... world
5 kids, 3 dogs, 1 heart
year 2025, 2026, 2027
From 12 students in grade 8
raised 10 000 000 so far
500$ + 300$ = 800$
6 feet 2 inches tall
اب ام اخ
من اخ لكم في الله
هل من مزيد
يا من له في كل لب حب
"""
"""Messages of donors as people write them."""


def texts_of(block: str) -> list[str]:
    return [text for text in block.replace("\n", "|").split("|") if text]


def reasons(text: str, **setting: object) -> list[str]:
    return [*held_texts({"message": text}, 2500, Setting(**setting)).get("message", [])]


@pytest.mark.parametrize("text", texts_of(ABUSE))
def test_abuse_is_held_in_every_disguise(text: str) -> None:
    assert "word" in reasons(text)


@pytest.mark.parametrize("text", texts_of(CONTACTS))
def test_telephone_numbers_and_addresses_are_held(text: str) -> None:
    assert {"phone", "address", "link"} & set(reasons(text))


@pytest.mark.parametrize("text", [*texts_of(INNOCENT), *NAMES.split("\n"), *ORDINARY.strip().split("\n")])
def test_innocent_texts_pass(text: str) -> None:
    assert reasons(text) == []


@pytest.mark.parametrize("text", [*LINKS.strip().splitlines(), *CHANGED.values()])
def test_links_are_held_as_they_are_hidden(text: str) -> None:
    assert ("link" in reasons(text)) == (text not in CHANGED.values())


@pytest.mark.parametrize("text", ["مرحبا\u202eبكم", "fu\u200bck", "fu\u00adck", "hel\u200dlo", "a\ufeffb"])
def test_characters_that_hide_letters_are_held(text: str) -> None:
    assert "hidden_characters" in reasons(text)


@pytest.mark.parametrize("text", ["\u200fمحمد\u200f", "می‌خواهم", "👩‍👩‍👧", "\u2068سارة\u2069", "Sara\u200b"])
def test_characters_that_keyboards_insert_pass(text: str) -> None:
    assert reasons(text) == []


@pytest.mark.parametrize(
    ("blocked", "text"),
    [
        *(
            ("🍆", "an 🍆"),
            ("Trump", "trump!"),
            ("Trump", "T R U M P"),
            ("ab cd", "AB  cd"),
            ("ترامب", "وترامب"),
        ),
        *(("اب", "اب"), ("a", "a"), ("=x", "x"), ("~", "~")),
    ],
)
def test_blocked_words_of_a_drive_are_held(blocked: str, text: str) -> None:
    assert reasons(text, blocked_words=(blocked,)) == ["blocked_word"]
    assert reasons("Layla", blocked_words=(blocked,)) == []


@pytest.mark.parametrize(
    ("setting", "amount", "text", "held"),
    [
        (Setting("off"), 100, "fuck", {}),
        (Setting("filtered"), 100, "fuck", {"message": ["word"]}),
        (Setting("filtered", 50), 100, "Hello", {}),
        (Setting("all"), 100, "Hello", {"message": ["mode"]}),
        (Setting("all", 101), 100, "Hello", {}),
        (Setting("all", 100), 100, "Hello", {"message": ["mode"]}),
        (Setting("all", 101), 100, "fuck", {"message": ["word"]}),
        (Setting("all"), 100, "\u200b", {}),
    ],
)
def test_each_mode_holds_what_it_says(
    setting: Setting, amount: int, text: str, held: dict[str, list[str]]
) -> None:
    assert held_texts({"message": text}, amount, setting) == held


def test_both_texts_are_held_where_one_does_not_pass_in_mode_all() -> None:
    held = held_texts({"name": "Layla", "message": "fuck"}, 100, Setting("all", 500))
    assert held == {"name": ["mode"], "message": ["word"]}


@given(st.text(max_size=300))
def test_any_text_is_judged(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    both = {"name": text, "message": text}
    assert set(held_texts(both, 1, Setting())) in (set(), set(both))


@given(st.lists(st.text(max_size=40), max_size=5), st.text(max_size=60))
def test_any_blocked_words_are_looked_for(words: list[str], text: str) -> None:
    assert blocked_words(words).is_in(fold(text)) in (True, False)


@given(st.sampled_from(texts_of(ABUSE)), st.sampled_from([" ", ", ", "! ", "\n", " 🎉 "]))
def test_abuse_is_found_within_a_sentence(word: str, between: str) -> None:
    assert COMMON.is_in(fold(f"Good luck{between}{word}{between}from all of us"))


HOSTILE = "\ufdfa\ufdfb\ufdf2\u2057\u0301\u0338.:,*#@|$+-_ 1379oluاقش7كabsfuckh[(\u3164\u200d🇫"
"""Letters that become many, marks, dots, signs that stand for letters, and what the patterns look for."""
MAX_STEPS = 8_000
"""Calls that judging a text takes, of Python and of C; a text of 280 letters "é" takes 2,100."""


def steps_of(text: str) -> int:
    """How many calls it takes to judge a text, the tables of letters being filled."""
    calls = 0

    def count(_frame: FrameType, _event: str, _argument: object) -> None:
        nonlocal calls
        calls += 1

    reasons(text)
    sys.setprofile(count)
    try:
        reasons(text)
    finally:
        sys.setprofile(None)
    return calls


def assert_cheap(text: str) -> None:
    """Every pattern takes time in proportion to what it searches, and that is bounded."""
    assert steps_of(text) < MAX_STEPS
    folded = fold(visible(text))
    if len(folded) > MAX_FOLDED:
        assert reasons(text) == ["too_long"]
        return
    found = readings(folded)
    assert len(joined(folded)) <= MAX_FOLDED
    assert max(len(found.words), len(found.franco)) <= 10 * MAX_FOLDED


@pytest.mark.parametrize(
    "text",
    [
        *(
            "\ufdfa" * 280,
            "\ufdfa." * 140,
            "a.b " * 70,
            "a." * 140,
            "а.b.c.d.e.f.g.h " * 17,
            "f*b*c*p*s*t* " * 21,
        ),
        *("ش*ق*ك*ن*ط*خ*ل*د*" * 17, "a\u0301\u0302\u0303\u0304" * 56, "1" * 280, "1 2-" * 70, "3$0|" * 70),
        *("o1" * 140, "a b " * 70, "kh7oouee" * 35, "one two " * 35, "ق7" * 140, "1 a b c " * 35, "fu" * 140),
    ],
)
def test_text_made_to_be_slow_takes_few_steps(text: str) -> None:
    assert_cheap(text[:280])


@settings(max_examples=60)
@given(st.lists(st.sampled_from(HOSTILE), max_size=12), st.text(st.sampled_from(HOSTILE), max_size=280))
def test_any_text_takes_few_steps(repeated: list[str], text: str) -> None:
    assert_cheap(text)
    assert_cheap(("".join(repeated) * 280)[:280])


def test_longest_ordinary_message_with_blessings_is_searched() -> None:
    assert reasons(("اللهم صل على محمد ﷺ " * 7 + "شكرا لكم " * 30)[:280]) == []
