"""Renders the pages from templates and a drive's data, as bytes.

All text from users is escaped by jinja2's autoescape here and set through `textContent` in the browser.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal
from urllib.parse import quote, urlencode

from backbone import money
from gateway.pages.frames import Frame
from gateway.pages.gift_menu import OtherCurrency, currencies_of, currency_name, example_amount, worth_of
from gateway.pages.languages import Voice, choose_voice, localised
from gateway.pages.phrases import Translations
from gateway.pages.templating import environment
from gateway.pages.translations import TRANSLATIONS
from gateway.pages.translations_donate import OF_CURRENCIES, RENDERED
from gateway.reach.sources import PARAMETERS, pledge_source

Title = str | Mapping[str, str] | None

OVERLAY_PARTS: Final = ("bar", "goal", "leaders", "alerts", "ticker", "milestones", "matching")
THEMES: Final = ("dark", "light", "clear")
LAYOUTS: Final = ("wide", "vertical")
SIZES: Final = ("m", "s", "l")
_KEPT: Final = ("creator", "currency", "digits", "key", "origin", *PARAMETERS)
"""Parameters of the form that its other pages keep, so that another donation has them too."""
_MESSAGE_MAX: Final = 280


@dataclass(frozen=True, slots=True)
class Creators:
    """Creators a donor may choose from: `id`, `slug` and `name` of each, and whether there are `more`."""

    listed: Sequence[Mapping[str, object]] = ()
    more: bool = False


_environment: Final = environment()


def overlay_page(
    drive_slug_or_id: str,
    title: Title,
    query: Mapping[str, str],
    *,
    impact: object = (),
    creator: object = None,
) -> bytes:
    """The OBS browser source of a drive: transparent, fed by `/v1/drives/{drive}/live`.

    `query`: `parts` (any of `OVERLAY_PARTS`; unknown ones are ignored, none means all), `lang` (ar, en; else
    the title's first), `theme` (dark, light, clear), `digits` (latn, arab), `layout` (wide, vertical; else by
    the source's shape), `size` (s, m, l). `impact` is the drive's. `creator` is the id of the creator whose
    overlay it is, if it is anyone's: pools that match only their gifts are shown there, and nowhere else.
    """
    voice = choose_voice(query, "", title)
    page = {
        "drive": drive_slug_or_id,
        "lang": voice.lang,
        "digits": voice.digits,
        "layout": query.get("layout") if query.get("layout") in LAYOUTS else None,
        "size": _one_of(SIZES, query.get("size")),
        "impact": impact,
        "creator": creator,
        "texts": TRANSLATIONS["overlay"][voice.lang],
    }
    return _render(
        "overlay.html",
        voice,
        page,
        title=localised(title, voice.lang) or drive_slug_or_id,
        parts=overlay_parts(query.get("parts", "")),
        theme=_one_of(THEMES, query.get("theme")),
    )


def setup_page(
    drive_slug_or_id: str, drive: Mapping[str, object], query: Mapping[str, str], *, accept_language: str = ""
) -> bytes:
    """The page that builds an overlay's address, `/overlay/{drive}/setup`, with a preview.

    `drive` has `title` and `currency`. `query`: `lang`.
    """
    title = _title(drive)
    voice = choose_voice(query, accept_language, title)
    currency = str(drive["currency"])
    page = {
        "drive": drive_slug_or_id,
        "lang": voice.lang,
        "digits": voice.digits,
        "currency": currency,
        "small": example_amount(currency),
        "large": money.decimal_string(1000 * 10 ** money.digits(currency), currency),
        "texts": TRANSLATIONS["setup"][voice.lang],
    }
    return _render(
        "setup.html",
        voice,
        page,
        title=localised(title, voice.lang) or drive_slug_or_id,
        parts=OVERLAY_PARTS,
        choices={"theme": THEMES, "layout": LAYOUTS, "size": SIZES},
        other_language=f"?lang={voice.other}",
    )


def _one_of(known: Sequence[str], asked: str | None) -> str:
    """`asked` if it is known, else the first."""
    return asked if asked is not None and asked in known else known[0]


def overlay_parts(asked: str) -> list[str]:
    """The parts that `parts=` names, in the order of `OVERLAY_PARTS`; all of them where it names none."""
    wanted = {part.strip() for part in asked[:200].split(",")}
    return [part for part in OVERLAY_PARTS if part in wanted] or list(OVERLAY_PARTS)


def donate_page(
    drive: Mapping[str, object],
    creators: Creators,
    query: Mapping[str, str],
    form_token: str,
    *,
    creator: Mapping[str, object] | None = None,
    accept_language: str = "",
    frame: Frame | None = None,
    fee: Mapping[str, int] | None = None,
    others: Sequence[OtherCurrency] = (),
    embedded_checkout: bool = False,
) -> bytes:
    """The hosted form, or with `frame` the one on a partner's page.

    It posts to `/v1/drives/{id}/pledges` with `form_token` in `Ataa-Form-Token`.

    `drive` is the drive or its totals: `id` or `drive` and `slug`; `title`, `currency`, `goal`; and, if
    known, `description`, `menu`, `test`, `raised`, `donations`, and `state`, of which draft, paused and
    closed show a notice. `creator` is the one that `query` names; an unknown one is reported on the page.
    `fee` is what the donor may add (`gateway.fees`), `others` are the currencies to offer besides the
    drive's own. `embedded_checkout` pays on `pay_page` instead of Stripe's site. `query`: `creator`,
    `currency` (else the drive's own), `lang`, `digits`, and where the donor comes from
    (`gateway.reach.sources`).
    """
    title = _title(drive)
    voice = choose_voice(query, accept_language, title)
    ref, slug = drive_refs(drive)
    currencies = currencies_of(drive, fee, others, voice)
    shown = _asked_currency(query, currencies)
    page = {
        "drive": ref,
        "slug": slug,
        "lang": voice.lang,
        "digits": voice.digits,
        "creator": creator and _creator_ref(creator),
        **_place(ref, slug, query, voice, frame, "" if shown == drive["currency"] else shown),
        **_currency_data(shown, currencies),
        "checkout_mode": "embedded" if embedded_checkout else "hosted",
        "token": form_token,
        "source": pledge_source(query),
        "texts": {
            **{
                key: phrase
                for key, phrase in TRANSLATIONS["donate"][voice.lang].items()
                if key not in RENDERED and (len(currencies) > 1 or key not in OF_CURRENCIES)
            },
            "error_message": voice.text("donate", "error_message", _MESSAGE_MAX),
        },
    }
    return _render(
        "donate.html",
        voice,
        page,
        title=localised(title, voice.lang) or slug,
        description=localised(drive.get("description"), voice.lang),
        test=drive.get("test") is True,
        notice=drive.get("state") if drive.get("state") in ("draft", "paused", "closed") else None,
        **_amounts(currencies[shown], str(drive["currency"]), voice),
        currencies=[(code, currency_name(code, voice)) for code in currencies] if len(currencies) > 1 else (),
        kept=_kept(query, ("creator", "digits", "key", "origin", *PARAMETERS), voice.lang),
        creator=creator,
        missing_creator=creator is None and bool(query.get("creator", "").strip()),
        creators=[{"ref": _creator_ref(c), "name": c.get("name", "")} for c in creators.listed],
        more_creators=creators.more,
        purposes=("general", "sadaqah", "zakat") if drive.get("zakat_eligible") is True else (),
        other_language=_other_language(_path(slug, frame), query, voice),
        **_progress(drive, voice),
    )


def thanks_page(
    drive: Mapping[str, object],
    query: Mapping[str, str],
    *,
    accept_language: str = "",
    frame: Frame | None = None,
) -> bytes:
    """The page a donor returns to after paying, `/donate/{drive}/thanks`.

    It follows the pledge of `?pledge=&token=`, or else the one this browser tab last made for the drive,
    and shows its status; without either it shows a general thank-you. `drive` as for `donate_page`.
    """
    title = _title(drive)
    voice = choose_voice(query, accept_language, title)
    ref, slug = drive_refs(drive)
    page = {
        "drive": ref,
        "slug": slug,
        "title": localised(title, voice.lang) or slug,
        "lang": voice.lang,
        "digits": voice.digits,
        **_place(ref, slug, query, voice, frame),
        "texts": TRANSLATIONS["thanks"][voice.lang],
    }
    return _render(
        "thanks.html",
        voice,
        page,
        title=localised(title, voice.lang) or slug,
        test=drive.get("test") is True,
        drive_url=_address(_path(slug, frame), query, _KEPT, voice.lang),
        other_language=_other_language(f"{_path(slug, frame)}/thanks", query, voice),
    )


def pay_page(
    drive: Mapping[str, object],
    query: Mapping[str, str],
    *,
    accept_language: str = "",
    frame: Frame | None = None,
) -> bytes:
    """The page of Stripe's embedded Checkout for the pledge of this tab. It shows no text of people."""
    voice = choose_voice(query, accept_language, _title(drive))
    ref, slug = drive_refs(drive)
    form = _path(slug, frame)
    page = {
        "lang": voice.lang,
        **_place(ref, slug, query, voice, frame),
        "form": _address(form, query, _KEPT, voice.lang),
        "thanks": _address(f"{form}/thanks", query, _KEPT, voice.lang),
        "texts": TRANSLATIONS["pay"][voice.lang],
    }
    return _render("pay.html", voice, page, drive_url=page["form"])


def badge_svg(voice: Voice, title: Sequence[str], creator: Sequence[str]) -> bytes:
    """The supporter badge with the drive's title and the creator's name, each in lines that fit."""
    height = 104 + 80 * len(title) + (74 if creator else 0)
    return _environment.get_template("badge.svg").render(
        voice=voice, texts=TRANSLATIONS["thanks"][voice.lang],
        title=title, creator=creator, height=height, top=1030 - height,
    ).encode("utf-8", "replace")  # fmt: skip


def problem_page(
    query: Mapping[str, str],
    *,
    problem: Literal["unknown_drive", "unknown_creator", "unavailable", "frame_refused"] = "unknown_drive",
    accept_language: str = "",
) -> bytes:
    """The HTML error page of a 404 (`unknown_drive`, `unknown_creator`), 503 (`unavailable`) or 403
    (`frame_refused`).
    """
    voice = choose_voice(query, accept_language, None)
    return _render("problem.html", voice, None, problem=problem, other_language=f"?lang={voice.other}")


def drive_refs(drive: Mapping[str, object]) -> tuple[str, str]:
    """The drive's id and slug, from a drive (`id`) or its totals (`drive`); each is the default of the other.

    The form posts to the id, so its token is made for the id.
    """
    ref = drive.get("id") or drive.get("drive") or drive["slug"]
    return str(ref), str(drive.get("slug") or ref)


def _path(slug: str, frame: Frame | None) -> str:
    return f"/{'embed' if frame else 'donate'}/{quote(slug)}"


def _place(
    ref: str, slug: str, query: Mapping[str, str], voice: Voice, frame: Frame | None, currency: str = ""
) -> dict[str, object]:
    """Where a page of the form is: its address without the creator, its storage, and its frame.

    `currency` is the one that the form shows where it is not the drive's own.

    Two forms on a partner's page, each for another creator, share an origin: each has its own storage.
    """
    kept: dict[str, str] = {"lang": voice.lang} | ({"digits": voice.digits} if voice.digits != "latn" else {})
    if currency:
        kept["currency"] = currency
    return {
        "path": _path(slug, frame),
        "query": kept | ({"key": frame.key, "origin": frame.origin} if frame else {}),
        "memory": f"{ref}.{query.get('creator', '')}" if frame else ref,
        "frame": {"origin": frame.origin, "key": frame.key} if frame else None,
    }


def _title(drive: Mapping[str, object]) -> Title:
    title = drive.get("title")
    return title if isinstance(title, str | Mapping) else None


def _creator_ref(creator: Mapping[str, object]) -> str:
    return str(creator.get("id") or creator["slug"])


def _asked_currency(query: Mapping[str, str], offered: Mapping[str, object]) -> str:
    """The currency that an address names if it is offered, else the drive's own, which comes first."""
    asked = query.get("currency", "").strip().upper()
    return asked if asked in offered else next(iter(offered))


def _currency_data(shown: str, currencies: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """What the form's script needs of the currency that it shows and, where there is a choice, of all."""
    one = currencies[shown]
    data: dict[str, object] = {name: one[name] for name in ("currency", "decimals", "fee")}
    return data if len(currencies) == 1 else {**data, "rate": one["rate"], "currencies": currencies}


def _amounts(shown: Mapping[str, object], own: str, voice: Voice) -> dict[str, object]:
    """The menu of the currency that is shown, and what its chosen amount is worth in the drive's `own`."""
    currency, chosen, rate, menu = str(shown["currency"]), shown["chosen"], shown["rate"], shown["menu"]
    worth = worth_of(str(chosen), currency, str(rate), own) if rate else ""
    return {
        "menu": [
            {"value": value, "text": voice.money(value, currency), "chosen": value == chosen}
            for value in (menu if isinstance(menu, list) else ())
        ],
        "example": shown["example"],
        "worth": voice.text("donate", "worth", money=voice.money(worth, own)) if worth else "",
    }


def _progress(drive: Mapping[str, object], voice: Voice) -> dict[str, object]:
    raised, goal, donations = drive.get("raised"), drive.get("goal"), drive.get("donations")
    return {
        "raised": _money_text(raised, voice),
        "goal": _money_text(goal, voice),
        "gifts": voice.text("donate", "gifts", donations) if isinstance(donations, int) else "",
        "percent": whole_percent(raised, goal),
    }


def whole_percent(raised: object, goal: object) -> int:
    """How much of `goal` is raised, 0 to 100, rounded down: 100 only once the goal is reached."""
    if not isinstance(raised, Mapping) or not isinstance(goal, Mapping):
        return 0
    part, whole = Decimal(str(raised["value"])), Decimal(str(goal["value"]))
    return min(100, int(part * 100 // whole)) if part > 0 and whole > 0 else 0


def _money_text(amount: object, voice: Voice) -> str:
    if not isinstance(amount, Mapping):
        return ""
    return voice.money(str(amount["value"]), str(amount["currency"]))


def _other_language(path: str, query: Mapping[str, str], voice: Voice) -> str:
    return _address(path, query, ("pledge", "token", *_KEPT), voice.other)


def _address(path: str, query: Mapping[str, str], kept: Sequence[str], lang: str) -> str:
    """`path` in `lang`, with those of `kept` that are in the query."""
    return f"{path}?{urlencode(_kept(query, kept, lang), errors='replace')}"


def _kept(query: Mapping[str, str], kept: Sequence[str], lang: str) -> dict[str, str]:
    return {**{name: query[name] for name in kept if name in query}, "lang": lang}


def _render(template: str, voice: Voice, page: Mapping[str, object] | None, **values: object) -> bytes:
    name = template.removesuffix(".html")
    return render_page(template, voice, page, TRANSLATIONS[name][voice.lang], **values)


def render_page(
    template: str,
    voice: Voice,
    page: Mapping[str, object] | None,
    texts: Translations,
    **values: object,
) -> bytes:
    """A template with the texts of its language; `page` is what the page's script reads."""
    html = _environment.get_template(template).render(voice=voice, page=page, texts=texts, **values)
    return html.encode("utf-8", "replace")
