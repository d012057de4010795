"""The pages themselves: templates filled with a drive's data, as bytes ready to send.

Everything that people wrote passes jinja2's autoescape here and `textContent` in the browser.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from backbone import money
from gateway.pages.assets import asset_url
from gateway.pages.languages import Voice, choose_voice, localised
from gateway.pages.words import WORDS

Title = str | Mapping[str, str] | None

OVERLAY_PARTS: Final = ("bar", "goal", "leaders", "alerts", "ticker")
THEMES: Final = ("dark", "light", "clear")
_MENU: Final = (25, 10, 5, 50, 20)  # the amounts that 73 % of gifts choose (SURGE.md)
_CREATORS_SHOWN: Final = 200

_environment: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.globals["asset"] = asset_url
_environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}


def overlay_page(drive_slug_or_id: str, title: Title, query: Mapping[str, str]) -> bytes:
    """The OBS browser source of a drive: transparent, fed by `/v1/drives/{drive}/live`.

    `query`: `parts` (any of bar, goal, leaders, alerts, ticker; unknown ones are ignored, none means all),
    `lang` (ar, en; else the title's first), `theme` (dark, light, clear), `digits` (latn, arab).
    """
    voice = choose_voice(query, "", title)
    page = {
        "drive": drive_slug_or_id,
        "lang": voice.lang,
        "digits": voice.digits,
        "words": WORDS["overlay"][voice.lang],
    }
    return _render(
        "overlay.html",
        voice,
        page,
        title=localised(title, voice.lang) or drive_slug_or_id,
        parts=_parts(query.get("parts", "")),
        theme=query.get("theme") if query.get("theme") in THEMES else THEMES[0],
    )


def _parts(asked: str) -> list[str]:
    wanted = {part.strip() for part in asked[:200].split(",")}
    return [part for part in OVERLAY_PARTS if part in wanted] or list(OVERLAY_PARTS)


def donate_page(
    drive: Mapping[str, object],
    creators: Sequence[Mapping[str, object]],
    query: Mapping[str, str],
    form_token: str,
    *,
    accept_language: str = "",
) -> bytes:
    """The hosted form. It posts to `/v1/drives/{id}/pledges` with `form_token` in `Ataa-Form-Token`.

    `drive` is the drive or its totals: `id` or `drive` and `slug`; `title`, `currency`, `goal`; and where
    they are known `description`, `menu`, `test`, `raised`, `percent`, `donations`, and `state`, of which only
    draft, paused and closed show a notice. The default menu is 25, 10, 5, 50 and 20 of the currency, a
    hundredfold where it has no decimals. `creators`: `slug`, `name` (and `id`); `query`: `creator` (id or
    slug), `lang`, `digits`.
    """
    title = _title(drive)
    voice = choose_voice(query, accept_language, title)
    ref, slug = drive_refs(drive)
    currency = str(drive["currency"])
    creator = _find_creator(creators, query.get("creator", ""))
    page = {
        "drive": ref,
        "slug": slug,
        "lang": voice.lang,
        "digits": voice.digits,
        "currency": currency,
        "decimals": money.digits(currency),
        "creator": creator and _creator_ref(creator),
        "token": form_token,
        "words": WORDS["donate"][voice.lang],
    }
    return _render(
        "donate.html",
        voice,
        page,
        title=localised(title, voice.lang) or slug,
        description=localised(drive.get("description"), voice.lang),
        test=drive.get("test") is True,
        notice=drive.get("state") if drive.get("state") in ("draft", "paused", "closed") else None,
        menu=_menu(drive, currency, voice),
        creator=creator,
        creators=[{"ref": _creator_ref(c), "name": c.get("name", "")} for c in creators[:_CREATORS_SHOWN]],
        example=example_amount(currency),
        other_language=_other_language(f"/donate/{quote(slug)}", query, voice),
        **_progress(drive, voice),
    )


def thanks_page(drive: Mapping[str, object], query: Mapping[str, str], *, accept_language: str = "") -> bytes:
    """Where a donor comes back to after paying, `/donate/{drive}/thanks`.

    It watches the pledge of `?pledge=&token=`, or else the one this browser tab last made for the drive,
    and says what became of it; without either it only thanks. `drive` as for `donate_page`.
    """
    title = _title(drive)
    voice = choose_voice(query, accept_language, title)
    ref, slug = drive_refs(drive)
    page = {
        "drive": ref,
        "lang": voice.lang,
        "digits": voice.digits,
        "words": WORDS["thanks"][voice.lang],
    }
    return _render(
        "thanks.html",
        voice,
        page,
        title=localised(title, voice.lang) or slug,
        test=drive.get("test") is True,
        drive_url=f"/donate/{quote(slug)}?lang={voice.lang}",
        other_language=_other_language(f"/donate/{quote(slug)}/thanks", query, voice),
    )


def problem_page(
    query: Mapping[str, str],
    *,
    problem: Literal["unknown_drive", "unavailable"] = "unknown_drive",
    accept_language: str = "",
) -> bytes:
    """What a person sees instead of a page: for a 404 (`unknown_drive`) or a 503 (`unavailable`)."""
    voice = choose_voice(query, accept_language, None)
    return _render("problem.html", voice, None, problem=problem, other_language=f"?lang={voice.other}")


def drive_refs(drive: Mapping[str, object]) -> tuple[str, str]:
    """The drive's id and slug, from a drive (`id`) or its totals (`drive`); one stands in for the other.

    The id is what the form posts to, so it is what its token is minted for.
    """
    ref = drive.get("id") or drive.get("drive") or drive["slug"]
    return str(ref), str(drive.get("slug") or ref)


def _title(drive: Mapping[str, object]) -> Title:
    title = drive.get("title")
    return title if isinstance(title, str | Mapping) else None


def _find_creator(creators: Sequence[Mapping[str, object]], asked: str) -> Mapping[str, object] | None:
    # An unknown creator in a link must not cost the gift: the form then opens without one.
    return next((c for c in creators if asked and asked in (c.get("id"), c.get("slug"))), None)


def _creator_ref(creator: Mapping[str, object]) -> str:
    return str(creator.get("id") or creator["slug"])


def _menu(drive: Mapping[str, object], currency: str, voice: Voice) -> list[dict[str, object]]:
    values = _own_menu(drive) or _default_menu(currency)
    chosen = values[0]
    rising = sorted(set(values), key=lambda value: money.parse(value, currency))
    return [{"value": v, "text": voice.money(v, currency), "chosen": v == chosen} for v in rising]


def _own_menu(drive: Mapping[str, object]) -> list[str]:
    menu = drive.get("menu")
    if not isinstance(menu, Sequence):
        return []
    return [str(item["value"]) for item in menu if isinstance(item, Mapping)]


def _default_menu(currency: str) -> list[str]:
    whole = 1 if money.digits(currency) else 100
    return [money.decimal_string(n * whole * 10 ** money.digits(currency), currency) for n in _MENU]


def example_amount(currency: str) -> str:
    """An amount of this currency in plain digits, as a donor may type it."""
    return money.decimal_string(25 * 10 ** money.digits(currency), currency)


def _progress(drive: Mapping[str, object], voice: Voice) -> dict[str, object]:
    raised, goal, gifts = drive.get("raised"), drive.get("goal"), drive.get("donations")
    percent = drive.get("percent")
    return {
        "raised": _money_text(raised, voice),
        "goal": _money_text(goal, voice),
        "gifts": voice.say("donate", "gifts", gifts) if isinstance(gifts, int) else "",
        "percent": max(0, min(percent, 100)) if isinstance(percent, int | float) else 0,
    }


def _money_text(amount: object, voice: Voice) -> str:
    if not isinstance(amount, Mapping):
        return ""
    return voice.money(str(amount["value"]), str(amount["currency"]))


def _other_language(path: str, query: Mapping[str, str], voice: Voice) -> str:
    kept = {name: query[name] for name in ("creator", "pledge", "token", "digits") if name in query}
    return f"{path}?{urlencode({**kept, 'lang': voice.other}, errors='replace')}"


def _render(template: str, voice: Voice, page: Mapping[str, object] | None, **values: object) -> bytes:
    name = template.removesuffix(".html")
    html = _environment.get_template(template).render(
        voice=voice, page=page, words=WORDS[name][voice.lang], **values
    )
    return html.encode("utf-8", "replace")
