"""The pages as bytes: escaping, languages, money, tokens, headers and assets."""

import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

import gateway.pages
from backbone.money import decimal_string, parse
from backbone.stripe_amounts import SUPPORTED_CURRENCIES, largest, smallest, step
from gateway.pages import (
    Creators,
    assets_app,
    check_form_token,
    donate_page,
    mint_form_token,
    overlay_page,
    page_headers,
    pay_page,
    problem_page,
    setup_page,
    static,
    thanks_page,
)
from gateway.pages.assets import FINGERPRINT, asset_url
from gateway.pages.gift_menu import example_amount
from gateway.pages.languages import Voice, choose_voice, localised, pick
from gateway.pages.translations import TRANSLATIONS

PAGES = Path(gateway.pages.__file__).parent
NOW = datetime(2026, 1, 7, 12, 0, tzinfo=UTC)
HOSTILE = """</script><img src=x onerror=alert(1)>"'&"""


def a_drive(**changes: object) -> dict[str, object]:
    drive: dict[str, object] = {
        "id": "drv_1",
        "slug": "winter",
        "title": {"en": "Winter", "ar": "شتاء"},
        "currency": "USD",
        "goal": {"currency": "USD", "value": "10000000.00"},
    }
    return {**drive, **changes}


class Outline(HTMLParser):
    """Tags, attributes and the page's JSON, as a browser would find them."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._within = ""
        self.texts: dict[str, str] = {}
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.texts[self._within] = self.texts.get(self._within, "") + data

    def page(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.texts["page"])
        return found

    def having(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = attributes.items()
        return [attrs for name, attrs in self.tags if name == tag and wanted <= attrs.items()]


# --- user texts are escaped ---


def test_hostile_title_and_slug_are_escaped_in_every_page() -> None:
    drive = a_drive(title={"en": HOSTILE}, slug=HOSTILE, description=HOSTILE)
    hostile = {"slug": "x", "name": HOSTILE}
    creators = Creators([hostile], more=True)
    hostile_query = {
        "creator": HOSTILE,
        "theme": HOSTILE,
        "parts": HOSTILE,
        "lang": HOSTILE,
        "token": HOSTILE,
    }
    pages = [
        overlay_page(HOSTILE, {"en": HOSTILE}, hostile_query, impact=[{"label": HOSTILE, "cost": HOSTILE}]),
        setup_page(HOSTILE, drive, hostile_query),
        donate_page(drive, creators, hostile_query, "f1.1.a"),
        donate_page(drive, creators, {"creator": "x"}, "f1.1.a", creator=hostile),
        thanks_page(drive, hostile_query),
        problem_page(hostile_query),
    ]
    for html in pages:
        outline = Outline(html)
        assert not outline.having("img")
        assert not [name for _, attrs in outline.tags for name in attrs if name.startswith("on")]


def test_no_page_has_an_inline_script_or_style() -> None:
    pages = [
        overlay_page("winter", None, {}),
        setup_page("winter", a_drive(), {}),
        donate_page(a_drive(), Creators(), {}, "f1.1.a"),
        thanks_page(a_drive(), {}),
        problem_page({}),
    ]
    for html in pages:
        outline = Outline(html)
        for attrs in outline.having("script"):
            assert "src" in attrs or attrs["type"] == "application/json"
        assert not outline.having("style")
        assert not [attrs for _, attrs in outline.tags if "style" in attrs]


# --- languages ---


@pytest.mark.parametrize(
    ("query", "accepted", "title", "lang"),
    [
        ({"lang": "ar"}, "en", {"en": "x"}, "ar"),
        ({"lang": "AR-sa"}, "", None, "ar"),
        ({"lang": "fr"}, "fr, ar;q=0.4, en;q=0.3", None, "ar"),
        ({}, "en;q=0.1, ar-EG", None, "ar"),
        ({}, "ar;q=nonsense.9..1, en;q=0.2", None, "en"),
        ({}, "", {"ar": "x"}, "ar"),
        ({}, "", {"ar-EG": "x"}, "ar"),
        ({}, "", "a plain title", "en"),
        ({}, ",;;=,\x00", None, "en"),
    ],
)
def test_language_comes_from_query_then_browser_then_title(
    query: dict[str, str], accepted: str, title: object, lang: str
) -> None:
    assert choose_voice(query, accepted, title).lang == lang


def test_arabic_page_declares_its_language_and_direction() -> None:
    outline = Outline(donate_page(a_drive(), Creators(), {"lang": "ar"}, "f1.1.a"))
    assert outline.having("html", lang="ar", dir="rtl")
    assert outline.texts["h1"].strip() == "شتاء"


def test_title_falls_back_to_an_existing_language() -> None:
    assert localised({"ar": "شتاء"}, "en") == "شتاء"
    assert localised({"fr": "Hiver"}, "en") == "Hiver"
    assert localised({"en": "Winter", "ar": ""}, "ar") == "Winter"
    assert localised({"fr": "Hiver", "ar-EG": "شتاء"}, "ar") == "شتاء"
    assert localised(None, "ar") == ""


def _holes(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name}


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_both_languages_have_the_same_keys_and_placeholders(page: str) -> None:
    english, arabic = TRANSLATIONS[page]["en"], TRANSLATIONS[page]["ar"]
    assert english.keys() == arabic.keys()
    for key, phrase in english.items():
        assert isinstance(phrase, str) == isinstance(arabic[key], str), key
        if isinstance(phrase, str):
            assert _holes(phrase) == _holes(pick(arabic[key], "ar", None)), key


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_every_text_is_used(page: str) -> None:
    files = [file for kind in ("templates/*", "static/*.js", "*.py") for file in PAGES.glob(kind)]
    text = "".join(file.read_text() for file in files if not file.name.startswith("translations"))
    # Keys composed of a prefix and a value of the API, and headlines with their "more".
    states = ("paid", "refunded", "disputed", "lapsed")
    composed = ("part_", "theme_", "layout_", "size_", "error_", "purpose_", "notice_", "retry_", *states)
    for key in TRANSLATIONS[page]["en"]:
        assert key.removesuffix("_more") in text or key.startswith(composed), key


def test_arabic_counts_use_their_plural_forms() -> None:
    voice = Voice("ar", "latn")
    texts = [voice.text("donate", "gifts", n) for n in (0, 1, 2, 3, 11, 100)]
    assert texts == ["لا تبرعات بعد", "تبرع واحد", "تبرعان", "3 تبرعات", "11 تبرعًا", "100 تبرع"]


# --- money ---


@pytest.mark.parametrize(
    ("value", "currency", "lang", "digits", "shown"),
    [
        ("999999.99", "USD", "en", "latn", "$999,999.99"),
        ("25.00", "USD", "en", "latn", "$25"),
        ("5.250", "KWD", "en", "latn", "\u2066KWD\u2069\u00a05.250"),
        ("123456789", "JPY", "en", "latn", "¥123,456,789"),
        ("25.50", "USD", "ar", "latn", "\u200f25.50\u00a0$"),
        ("1234.50", "USD", "ar", "arab", "\u200f١٬٢٣٤٫٥٠\u00a0$"),
        ("99999999999999.99", "USD", "en", "latn", "$99,999,999,999,999.99"),
        ("1234.500", "IQD", "en", "latn", "\u2066IQD\u2069\u00a01,234.500"),  # CLDR would round it
    ],
)
def test_money_is_written_exactly(value: str, currency: str, lang: Any, digits: Any, shown: str) -> None:
    assert Voice(lang, digits).money(value, currency) == shown


def test_menu_is_the_drives_own_or_the_default_of_its_currency() -> None:
    def menu(drive: dict[str, object]) -> list[str | None]:
        return [
            attrs["value"]
            for attrs in Outline(donate_page(drive, Creators(), {}, "t")).having("input", name="menu")
        ]

    assert menu(a_drive()) == ["5.00", "10.00", "20.00", "25.00", "50.00"]
    assert menu(a_drive(currency="KWD")) == ["5.000", "10.000", "20.000", "25.000", "50.000"]
    assert menu(a_drive(currency="JPY")) == ["500", "1000", "2000", "2500", "5000"]
    assert menu(a_drive(currency="HUF")) == ["500.00", "1000.00", "2000.00", "2500.00", "5000.00"]
    own = [{"currency": "USD", "value": "7.00"}, {"currency": "USD", "value": "3.50"}]
    assert menu(a_drive(menu=own)) == ["3.50", "7.00"]


@pytest.mark.parametrize("currency", sorted(SUPPORTED_CURRENCIES))
def test_amounts_that_stripe_refuses_are_not_offered(currency: str) -> None:
    """Neither default amounts nor those of a drive created before the limits existed."""
    too_little, too_much = smallest(currency) - 1, largest(currency) + 1
    for menu in ([], [too_little, smallest(currency)], [too_little, too_much]):
        own = [{"currency": currency, "value": decimal_string(units, currency)} for units in menu]
        page = Outline(donate_page(a_drive(currency=currency, goal=None, menu=own), Creators(), {}, "t"))
        offered = [parse(str(one["value"]), currency) for one in page.having("input", name="menu")]
        assert offered
        for units in (*offered, parse(example_amount(currency), currency)):
            assert smallest(currency) <= units <= largest(currency)
            assert units % step(currency) == 0


# --- the form ---


def test_form_contains_drive_id_token_and_known_creator() -> None:
    nour = {"id": "crt_9", "slug": "nour", "name": "Nour"}
    outline = Outline(donate_page(a_drive(), Creators([nour]), {"creator": "Nour"}, "f1.9.ab", creator=nour))
    page = outline.page()
    assert (page["drive"], page["token"], page["creator"], page["decimals"]) == (
        "drv_1",
        "f1.9.ab",
        "crt_9",
        2,
    )
    assert not outline.having("select")
    assert not outline.having("p", id="missing-creator")


@pytest.mark.parametrize("lang", ["en", "ar"])
def test_unknown_creator_in_the_link_is_reported_and_the_form_still_works(lang: str) -> None:
    query = {"creator": "gone", "lang": lang}
    for creators, link in (
        (Creators(), None),
        (Creators([{"slug": "x", "name": "X"}]), "#creator"),
        (Creators([{"slug": "x", "name": "X"}], more=True), "#find"),
    ):
        outline = Outline(donate_page(a_drive(), creators, query, "t"))
        assert outline.page()["creator"] is None
        assert outline.having("form")
        assert outline.texts["missing-creator"].strip() == TRANSLATIONS["donate"][lang]["missing_creator"]
        assert bool(outline.having("a", href=str(link))) is (link is not None)
        assert "gone" not in outline.texts["missing-creator"]


@pytest.mark.parametrize("query", [{}, {"creator": ""}, {"creator": " "}])
def test_link_without_a_creator_shows_no_message(query: dict[str, str]) -> None:
    assert not Outline(donate_page(a_drive(), Creators(), query, "t")).having("p", id="missing-creator")


def test_search_field_exists_only_if_not_all_creators_are_listed() -> None:
    listed = [{"id": f"crt_{n}", "slug": f"c{n}", "name": f"C {n}"} for n in range(100)]
    assert not Outline(donate_page(a_drive(), Creators(listed), {}, "t")).having("input", type="search")
    outline = Outline(donate_page(a_drive(), Creators(listed, more=True), {}, "t"))
    assert outline.having("input", type="search")
    assert len(outline.having("option")) == 101


@pytest.mark.parametrize(
    ("state", "form"), [("closed", False), ("draft", False), ("paused", True), ("live", True)]
)
def test_drive_that_accepts_no_donations_shows_no_form(state: str, form: bool) -> None:
    outline = Outline(donate_page(a_drive(state=state), Creators(), {}, "t"))
    assert bool(outline.having("form")) is form
    assert bool(outline.having("section", role="status")) is (state != "live")


def test_page_renders_from_totals_and_ignores_their_freshness_state() -> None:
    raised = {"currency": "USD", "value": "11050000.00"}
    totals = {**a_drive(), "drive": "drv_1", "state": "frozen", "donations": 2, "raised": raised}
    del totals["id"]
    outline = Outline(donate_page(totals, Creators(), {}, "t"))
    assert outline.having("form")
    assert outline.page()["drive"] == "drv_1"
    assert outline.having("progress", value="100")


@pytest.mark.parametrize(
    ("raised", "goal", "percent"),
    [
        ("9996.00", "10000.00", "99"),
        ("9999.99", "10000.00", "99"),
        ("10000.00", "10000.00", "100"),
        ("10000.01", "10000.00", "100"),
        ("0.01", "10000.00", "0"),
        ("-10.00", "10000.00", "0"),
        ("99999999999999.98", "99999999999999.99", "99"),
    ],
)
def test_bar_is_full_only_once_the_goal_is_reached(raised: str, goal: str, percent: str) -> None:
    drive = a_drive(
        raised={"currency": "USD", "value": raised}, goal={"currency": "USD", "value": goal}, percent=100.0
    )
    assert Outline(donate_page(drive, Creators(), {}, "t")).having("progress", value=percent)


def test_the_example_of_an_amount_has_the_digits_of_the_page() -> None:
    for query, example in (({}, "25.00"), ({"lang": "ar", "digits": "arab"}, "٢٥٫٠٠")):
        assert Outline(donate_page(a_drive(), Creators(), query, "t")).having("input", placeholder=example)


def test_test_drive_shows_that_no_money_moves() -> None:
    assert b'class="ribbon"' in donate_page(a_drive(test=True), Creators(), {}, "t")
    assert b'class="ribbon"' not in donate_page(a_drive(), Creators(), {}, "t")


def test_donate_page_with_its_assets_is_under_30_kb() -> None:
    html = donate_page(a_drive(), Creators(), {"lang": "ar"}, "f1.1.a")
    loaded = [
        value for _, attrs in Outline(html).tags for key in ("src", "href") if (value := attrs.get(key))
    ]
    assets = [body for path in set(loaded) if (found := static(path)) for body in [found[0]]]
    assert len(assets) == 17
    assert len(html) + sum(len(gzip.compress(body)) for body in assets) < 30_000


def test_form_has_every_text_that_its_scripts_name() -> None:
    html = donate_page(a_drive(), Creators(), {"lang": "ar"}, "f1.1.a").decode()
    texts = json.loads(re.findall(r'id="page">(.*?)</script>', html)[0])["texts"]
    paths = re.findall(r'(?:src|href)="(/[^"]+[.]js)"', html)
    scripts = "".join(found[0].decode() for path in paths if (found := static(path)))
    named = set(re.findall(r"\btexts\.(\w+)\b(?!\()", scripts))
    assert len(named) > 10
    assert named <= texts.keys()


@pytest.mark.parametrize("screen", ["donate", "thanks", "pay"])
def test_every_module_of_a_page_is_preloaded(screen: str) -> None:
    """A module that is found only once another has arrived costs a slow connection another round trip."""
    form = donate_page(a_drive(), Creators(), {}, "t")
    pages = {"donate": form, "thanks": thanks_page(a_drive(), {}), "pay": pay_page(a_drive(), {})}
    outline = Outline(pages[screen])
    preloaded = {str(attrs["href"]) for attrs in outline.having("link", rel="modulepreload")}
    wanted = [str(attrs["src"]) for attrs in outline.having("script", type="module")]
    for path in wanted:
        found = static(path)
        assert found is not None, path
        imported = {asset_url(name) for name in re.findall(r'from "\./([^"]+)"', found[0].decode())}
        assert imported <= preloaded, path
        wanted += imported - set(wanted)
    assert preloaded == set(wanted[1:])


def test_every_field_has_a_label() -> None:
    outline = Outline(donate_page(a_drive(), Creators([{"slug": "x", "name": "X"}], more=True), {}, "t"))
    fields = [a for tag in ("input", "textarea", "select") for a in outline.having(tag)]
    labelled = {attrs.get("for") for attrs in outline.having("label")}
    free = [a for a in fields if a.get("type") not in ("radio", "checkbox") and a.get("id") not in labelled]
    assert fields
    assert not free


# --- the overlay ---


def test_unknown_parts_and_themes_are_ignored() -> None:
    html = overlay_page("winter", None, {"parts": "bar,rain,<b>", "theme": "loud"}).decode()
    assert 'class="bar panel"' in html
    assert 'class="ticker panel"' not in html
    assert 'data-theme="dark"' in html


def test_without_parts_all_are_shown_and_freshness_is_always_shown() -> None:
    assert overlay_page("winter", None, {"parts": "rain"}).count(b'class="alerts"') == 1
    for parts in ("bar", "leaders", "alerts", "ticker", "goal", ""):
        assert overlay_page("winter", None, {"parts": parts}).count(b'class="freshness"') == 1


# --- form tokens ---


def test_form_token_is_valid_for_its_drive_for_two_hours() -> None:
    token = mint_form_token(b"secret", "drv_1", NOW)
    assert check_form_token(b"secret", "drv_1", token, NOW)
    assert check_form_token(b"secret", "drv_1", token, NOW + timedelta(hours=1, minutes=59))
    assert not check_form_token(b"secret", "drv_1", token, NOW + timedelta(hours=2))
    assert not check_form_token(b"secret", "drv_2", token, NOW)
    assert not check_form_token(b"other", "drv_1", token, NOW)


def test_form_token_cannot_be_extended_or_forged() -> None:
    token = mint_form_token(b"secret", "drv_1", NOW)
    _, expires, seal = token.split(".")
    later = f"f1.{int(expires) + 3600}.{seal}"
    arabic = token.replace("1", "١")
    for forged in (
        later,
        arabic,
        token + "\n",
        "",
        "f1..",
        token[:-1],
        "\udce9",
        "f1." + "9" * 400 + "." + seal,
    ):
        assert not check_form_token(b"secret", "drv_1", forged, NOW)


# --- headers and assets ---


def test_only_overlays_allow_framing_and_inline_style_and_no_page_inline_script() -> None:
    def policy(kind: Any) -> dict[str, str]:
        text = dict(page_headers(kind))[b"content-security-policy"].decode()
        return dict(one.strip().partition(" ")[::2] for one in text.split(";"))

    overlay = policy("overlay")
    for kind in ("donate", "thanks", "problem"):
        strict = policy(kind)
        assert strict["frame-ancestors"] == strict["trusted-types"] == "'none'"
        assert strict["style-src"] == strict["script-src"] == "'self'"
        looser = {
            "frame-ancestors": "* file:",
            "trusted-types": "default",
            "style-src": "'self' 'unsafe-inline'",
        }
        assert overlay == {**strict, **looser}
    assert policy("setup") == {**policy("donate"), "frame-src": "'self'"}


def test_pages_with_a_token_are_not_cached() -> None:
    assert dict(page_headers("donate"))[b"cache-control"] == b"private, no-store"
    assert dict(page_headers("thanks"))[b"cache-control"] == b"private, no-store"


def test_every_module_a_script_imports_is_served() -> None:
    scripts = ["overlay.js", "setup.js", "donate.js", "thanks.js"]
    for name in scripts:
        found = static(asset_url(name))
        assert found is not None
        scripts += set(re.findall(r'(?:from|import|URL\() ?"\./([^"]+)"', found[0].decode())) - set(scripts)
    assert {"hub_worker.js", "trusted.js", "feed.js"} < set(scripts)
    with pytest.raises(KeyError):
        asset_url("nothing.js")


@pytest.mark.parametrize(
    "path", ["/assets", "/assets/", "/assets/x/../translations.py", "/x/y/donate.js", "", "/assets/x/"]
)
def test_unknown_assets_are_404(path: str) -> None:
    assert static(path) is None


async def ask(method: str, path: str, **headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await assets_app({"type": "http", "method": method, "path": path, "headers": pairs}, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def test_current_asset_is_cached_for_ever_and_another_versions_is_revalidated() -> None:
    _, today, _ = await ask("GET", f"/assets/{FINGERPRINT}/donate.js")
    _, older, body = await ask("GET", "/assets/000000000000/donate.js")
    assert b"immutable" in today[b"cache-control"]
    assert older[b"cache-control"] == b"no-cache"
    assert body.startswith(b"//")


async def test_assets_support_gzip_and_etags_and_refuse_other_methods() -> None:
    path = asset_url("donate.css")
    status, headers, body = await ask("GET", path, accept_encoding="br, gzip")
    assert (status, headers[b"content-encoding"]) == (200, b"gzip")
    assert gzip.decompress(body) == (static(path) or (b"",))[0]
    status, _, body = await ask("GET", path, if_none_match=headers[b"etag"].decode())
    assert (status, body) == (304, b"")
    status, head, body = await ask("HEAD", path)
    assert (status, body) == (200, b"")
    assert int(head[b"content-length"]) > 0
    assert (await ask("POST", path))[0] == 405
    assert (await ask("GET", "/assets/x/nothing.js"))[0] == 404
