"""Names that must be shown, disguised links that must be hidden, and invisible characters."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pledges.donor_texts import MAX_MARKS, displayed, normalized, visible
from services.pledges.links import has_link

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
letters = st.text(st.characters(categories=["L", "Nd", "Zs"]), max_size=40)
SPACES = " \t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"

# DerivedCoreProperties.txt, Default_Ignorable_Code_Point (Unicode 16).
IGNORABLE = [
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0x200B, 0x2010)),
    *(*range(0x202A, 0x202F), *range(0x2060, 0x2070), 0x3164, *range(0xFE00, 0xFE10), 0xFEFF, 0xFFA0),
    *(*range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)),
]
BLANK = "\u2800\U0001d159\ufff9\ufffa\ufffb\ufffc\ue000\uf8ff\ufdd0\uffff\U0010ffff\x00\x07\x7f\x9f"

NAMES = """
Sara
سارة أحمد
أبو فلة
AboFlah
مُحَمَّد بن عبدِ اللّٰه
محـــمد
عبد الرحمن.علي
أ.د. خالد السعيد
د.فاطمة
ام.أحمد
می‌خواهم
نرگس‌خاتون
علی‌رضا بیرانوند
میرزا اسداللہ خاں غالبؔ
Mr.Beast
MrBeast
mr.beast
MR.BEAST
St.John
St. John
St.Louis Fan
Dr.Dre
Dr. Who
Dr.Ahmed
Prof.Snape
J.Lo
J.Cole
J.K.Rowling
J.R.R.Tolkien
P.Diddy
M.I.A.
Ph.D
Dipl.-Ing. Viviane Täsche
Martin Luther King Jr.
G.I.Joe
a.k.a Sara
a.b. c
Team.Liquid
Ninja
xX_Sniper.Wolf_Xx
n00b.master.69
PewDiePie
شونغ™
José María
Jose\u0301
Ángel 🎉
Nguyễn Thị Ánh
Ðặng Văn
O'Brien
Jean-Luc d'Arc
Gal·la Placídia
Gabriel·la
İbrahim Şahin
Łukasz Żółć
Александр Пушкин
А.С.Пушкин
Ἀριστοτέλης
Γιάννης.Κ
דָּוִד בֶּן־גּוּרִיּוֹן
ד"ר כהן
山田　太郎
ジョン・スミス
葛󠄀城
김철수
สมชาย ใจดี
श्रीमती क्षमा
क्‍ष
বাংলা
தமிழ்
မြန်မာ
བོད་རྒྱལ
Ꮳꮃꭹ
👩‍👩‍👧
❤️‍🔥 Sara
👋🏽
🇸🇦 خالد
🏴󠁧󠁢󠁥󠁮󠁧󠁿 Harry
1️⃣ fan
🫩
$hort
100% for 25.50!
v1.2.3
3.14
O.o
ok...
so..me
:)
@sara
"""
CHANGED = {"山田　太郎": "山田 太郎", "Jose\u0301": "José"}

LINKS = """
evil.com
see evil.com
EVIL.COM
Evil.Com
visit evil.com!
(evil.com)
evil.com/path
evil.com:8080
evil.com?x=1
evil.com,now
evil.com، زوروا
evil.comزوروا
زورواevil.com
evil.com😀
evil.com_
evil.com-
-evil.com
evil.com.
evil.com.visit
sub.evil.co.uk
gov.uk
evil.alt.za
evil.ck
github.io
t.me/x
t.me
x.com
T.co
bit.ly
discord.gg/abc
youtu.be
mr.bet
dr.bet
will.i.am
evil.museum
evil.xn--fiqs8s
xn--e1afmkfd.xn--p1ai
пример.рф
موقع.قطر
موقع.قـطر
مَوقع.قَطر
قناة.كوم
例え.テスト.jp
उदाहरण.भारत
例子.中国
http://evil.example
HTTPS://EVIL
https:/evil
ftp://x
www.x
www . evil
mailto:x
tel:+1
javascript:alert
a@b.org
ali@gmail.con
1.2.3.4
http://1.2.3.4
e\u200bvil.c\u200bom
evil\u00ad.com
evil.\u2060com
evil\u2800.com
evil\u200e.\u200fcom
evil.c\ufe0fom
evil.c\u034fom
evil.c\U000e0061om
e\u0301vil.com
evil.co\u0308m
evil。com
evil．com
evil｡com
evil․com
evilꓸcom
ｅｖｉｌ.ｃｏｍ
𝐞𝐯𝐢𝐥.𝐜𝐨𝐦
ⓔⓥⓘⓛ.ⓒⓞⓜ
evil.сom
evil.cоm
ⅇvil.ⅽom
evil.cοm
evil . com
evil .com
evil. com
evil dot com
evil DOT com
evil(dot)com
evil [.] com
evil[dot]com
evil دوت كوم
قناة نقطة كوم
evil.com\u202e
"""


@pytest.mark.parametrize("name", NAMES.strip().split("\n"))
def test_name_is_shown_unchanged(name: str) -> None:
    assert displayed(normalized(name)) == CHANGED.get(name, normalized(name))


@pytest.mark.parametrize("text", [*LINKS.strip().split("\n"), "evil\n.com"])
def test_text_with_a_link_is_hidden(text: str) -> None:
    assert displayed(normalized(text)) is None
    assert displayed(normalized(f"شكرا {text} جميعا")) is None
    assert displayed(normalized(f"Thanks! {text} Sara")) is None


@pytest.mark.parametrize(
    "sentence", ["Stay warm. Love from Oman.", "Great! Be well…", "بارك الله فيكم.من القلب"]
)
def test_sentence_without_a_link_is_shown(sentence: str) -> None:
    assert displayed(normalized(sentence)) == normalized(sentence)


def test_name_of_invisible_characters_is_hidden() -> None:
    unseen = [*map(chr, IGNORABLE), *SPACES, *BLANK, "\u0301", "\u064e", "\u20e3"]
    assert [ascii(one) for one in unseen if displayed(one) is not None] == []
    assert displayed("".join(unseen)) is None
    for one in unseen:
        assert displayed(f" {one}\u200b{one}\u3164") is None, ascii(one)


@pytest.mark.parametrize(
    "sign", [*BIDI, "\u200b", "\ufeff", "\u00ad", "\u2060", "\x07", "\ue000", "\U000e0061"]
)
def test_invisible_characters_are_removed(sign: str) -> None:
    assert displayed(f"{sign}سا{sign}رة{sign}") == "سارة"
    assert displayed(f"{sign}Sa{sign}ra{sign}") == "Sara"


@pytest.mark.parametrize("blank", [*SPACES, "\u2800", "\u3164", "\uffa0", "\U0001d159", "\r\n", " \u200b "])
def test_blank_characters_become_one_space(blank: str) -> None:
    assert displayed(f"{blank}Sara{blank}{blank}Ali{blank}") == "Sara Ali"


def test_joiners_are_kept_only_where_they_shape_text() -> None:
    assert displayed("S\u200da\u200cra") == "Sara"
    assert displayed("Sara\ufe0f\u200d") == "Sara"
    assert displayed("سارة\u200d") == "سارة"
    assert displayed("\U0001f3f4\U000e0068\U000e0069\U000e0064\U000e0065 x") == "\U0001f3f4 x"


def test_marks_are_limited_and_need_a_letter() -> None:
    tower = "\u0338\u0322\u031b\u0316\u0318\u031c\u0301\u0302\u0303"
    seen = displayed(f"Z{tower}o") or ""
    assert sum(map(unicodedata.combining, seen)) > 0
    assert sum(unicodedata.category(one) == "Mn" for one in seen) == MAX_MARKS
    assert (unicodedata.normalize("NFD", seen)[0], seen[-1]) == ("Z", "o")
    assert displayed("\u0301\u0302Sara \u0303Ali") == "Sara Ali"
    assert displayed("لَّٰ") == "لَّٰ"


def test_name_and_message_are_checked_separately() -> None:
    assert (displayed("evil"), displayed(".com is nice")) == ("evil", ".com is nice")


@given(letters)
def test_letters_digits_and_spaces_are_shown(text: str) -> None:
    assert not has_link(visible(text))


@given(letters, st.sampled_from(["http://x", "x.com", "t.me/x", "a@b.org", "موقع.قطر", "1.2.3.4"]), letters)
def test_link_is_detected_in_any_context(before: str, link: str, after: str) -> None:
    assert displayed(normalized(f"{before} {link} {after}")) is None


@given(st.text(), st.sampled_from("evil.com"), st.sampled_from(BIDI + "\u200b\u200c\u200d\ufe0f\u00ad\u2060"))
def test_link_is_detected_with_invisible_characters_inside(text: str, place: str, sign: str) -> None:
    assert displayed(normalized("evil.com".replace(place, place + sign, 1))) is None


@given(st.text(st.characters() | st.sampled_from([*map(chr, IGNORABLE[:60]), *SPACES, *BLANK])))
def test_visible_is_one_nfc_line_and_idempotent(text: str) -> None:
    seen = visible(text)
    assert visible(seen) == seen
    assert unicodedata.is_normalized("NFC", seen)
    assert seen == " ".join(seen.split())
    assert not set(seen) & set(BIDI + "\n\x00\u200b\ufeff\u3164\u2800")
    runs = "".join("m" if unicodedata.category(one) in ("Mn", "Me") else "." for one in seen)
    assert "m" * (MAX_MARKS + 1) not in runs


@given(st.text())
def test_normalized_is_nfc_and_idempotent(text: str) -> None:
    kept = normalized(text)
    assert kept is None or unicodedata.is_normalized("NFC", kept)
    assert normalized(kept) == kept
