"""The form of a drive: its fields as a person writes them, and the request that they make.

Amounts and shares are read as decimal text, never as floats. What cannot be read is passed on as it was
written, so that the service's own error names the field.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from backbone.money import DIGITS
from gateway.console.client import Refused

SPARE_ROWS: Final = 3
"""Empty rows after those that are filled."""

_AMOUNT: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII)
_SHARE: Final = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?", re.ASCII)
_MINUTES: Final = len("2030-01-31T18:00")

Json = dict[str, Any]
Fields = Sequence[tuple[str, str]]

ROW_FIELDS: Final[Mapping[str, Sequence[str]]] = {
    "milestones": ("milestone_en", "milestone_ar", "milestone_amount", "milestone_more"),
    "beneficiaries": ("beneficiary", "share"),
}
_HIDDEN: Final = ("milestone_more",)
"""Fields of rows that people do not see: the title in languages that the form does not show."""


def fields_of(drive: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The fields that show `drive`, as a browser would post them back."""
    title, description = drive["title"], drive.get("description")
    fields = [
        ("slug", drive["slug"]),
        ("title_en", _in(title, "en")),
        ("title_ar", _in(title, "ar")),
        ("description_en", _in(description, "en")),
        ("description_ar", _in(description, "ar")),
        ("currency", drive["currency"]),
        ("goal", drive["goal"]["value"]),
        ("starts_at", (drive.get("starts_at") or "")[:_MINUTES]),
        ("ends_at", (drive.get("ends_at") or "")[:_MINUTES]),
        ("currencies", " ".join(drive.get("currencies") or ())),
        ("menu", " ".join(one["value"] for one in drive.get("menu") or ())),
        ("permit", drive.get("permit") or ""),
    ]
    fields += [(name, "yes") for name in ("zakat_eligible", "test") if drive.get(name)]
    for milestone in drive.get("milestones") or ():
        texts = milestone["title"]
        fields += [("milestone_en", _in(texts, "en")), ("milestone_ar", _in(texts, "ar"))]
        fields.append(("milestone_amount", milestone["amount"]["value"]))
        fields.append(("milestone_more", urlencode(_other_languages(texts))))
    for one in drive.get("beneficiaries") or ():
        whole, part = divmod(one["share_bps"], 100)
        fields += [("beneficiary", one["name"]), ("share", f"{whole}.{part:02d}" if part else str(whole))]
    return fields


def stand_in(ref: str, fields: Fields) -> Json:
    """What a form itself tells of its drive, to be shown while the drive cannot be read."""
    return {"id": ref, "slug": ref, "title": None, "currency": dict(fields).get("currency", "")}


def request_of(fields: Fields, currency: str = "") -> Json:
    """The body of `POST /v1/drives` that the fields make. `currency` is that of a drive that exists."""
    form = dict(fields)
    unit = currency or form.get("currency", "").strip().upper()
    return {
        "slug": form.get("slug", "").strip(),
        "title": _texts(form.get("title_en", ""), form.get("title_ar", "")) or "",
        "description": _texts(form.get("description_en", ""), form.get("description_ar", "")),
        "currency": unit,
        "goal": money_of(form.get("goal", ""), unit),
        "starts_at": moment_of(form.get("starts_at", "")),
        "ends_at": moment_of(form.get("ends_at", "")),
        "currencies": [code.upper() for code in listed(form.get("currencies", ""))],
        "menu": [money_of(one, unit) for one in listed(form.get("menu", ""))],
        "permit": form.get("permit", "").strip() or None,
        "zakat_eligible": form.get("zakat_eligible") == "yes",
        "test": form.get("test") == "yes",
        "milestones": [
            {"title": _milestone_title(en, ar, more), "amount": money_of(amount, unit)}
            for en, ar, amount, more in rows_of(fields, "milestones")
        ],
        "beneficiaries": [
            {"name": name.strip(), "share_bps": _share_bps(share)}
            for name, share in rows_of(fields, "beneficiaries")
        ],
    }


def changes_of(drive: Mapping[str, Any], fields: Fields) -> Json:
    """The body of `PATCH /v1/drives/{drive}`: what the fields change of `drive`, and nothing else.

    A field that the form shows less exactly than the drive has it, such as a date with seconds, is left as it
    is unless the person changed it. Texts in other languages than the form's stay.

    Raises `ChangedMeanwhile` where it changes a field that another person changed since the form was shown.
    """
    before, after = request_of(fields_of(drive), drive["currency"]), request_of(fields, drive["currency"])
    changed = {name: value for name, value in after.items() if value != before[name]}
    shown = dict(one.split(":", 1) for one in dict(fields).get("shown", "").split(",") if ":" in one)
    if shown:
        now, posted = _marks(before), _marks(after)
        changed = {name: value for name, value in changed.items() if posted[name] != shown.get(name)}
        if meanwhile := [name for name in changed if now[name] != shown.get(name)]:
            raise ChangedMeanwhile(meanwhile)
    for name in ("title", "description"):
        kept = _other_languages(drive.get(name))
        if kept and name in changed:
            changed[name] = {**kept, **(changed[name] or {})}
    return changed


def shown_of(drive: Mapping[str, Any]) -> str:
    """A mark of each field as a form shows it, for the form's hidden field `shown`."""
    marks = _marks(request_of(fields_of(drive), drive["currency"]))
    return ",".join(f"{name}:{mark}" for name, mark in marks.items())


def _marks(request: Json) -> dict[str, str]:
    return {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
        for name, value in request.items()
    }


class ChangedMeanwhile(Refused):
    """Another person changed `fields` of the drive since the form was shown."""

    def __init__(self, fields: Sequence[str]) -> None:
        super().__init__(409, {"type": "/problems/changed-meanwhile"})
        self.fields = fields


def rows_of(fields: Fields, group: str) -> list[tuple[str, ...]]:
    """The rows of a repeated group that people see something in."""
    names = ROW_FIELDS[group]
    columns = [[value for name, value in fields if name == wanted] for wanted in names]
    return [row for row in zip_longest(*columns, fillvalue="") if _is_filled(names, row)]


def _is_filled(names: Sequence[str], row: Sequence[str]) -> bool:
    return any(cell.strip() for name, cell in zip(names, row, strict=True) if name not in _HIDDEN)


def _in(texts: object, lang: str) -> str:
    """The text in a language; a single text without a language counts as English."""
    if isinstance(texts, str):
        return texts if lang == "en" else ""
    return str(texts.get(lang, "")) if isinstance(texts, Mapping) else ""


def _other_languages(texts: object) -> Json:
    if not isinstance(texts, Mapping):
        return {}
    return {tag: value for tag, value in texts.items() if tag not in ("en", "ar")}


def _texts(english: str, arabic: str) -> dict[str, str] | None:
    found = {"en": english.strip().replace("\r\n", "\n"), "ar": arabic.strip().replace("\r\n", "\n")}
    return {lang: one for lang, one in found.items() if one} or None


def latin(text: str) -> str:
    """`text` with the decimal digits of every script as 0 to 9, and Arabic's decimal sign as a point.

    Superscripts and circled digits stay: "5²" is no amount.
    """
    digits = (str(unicodedata.decimal(letter)) if letter.isdecimal() else letter for letter in text)
    return "".join(digits).replace("٫", ".").replace("٬", "").strip()


def _milestone_title(english: str, arabic: str, more: str) -> dict[str, str] | str:
    """The texts of the form, and those in other languages, which are urlencoded in `more`."""
    return {**dict(parse_qsl(more)), **(_texts(english, arabic) or {})} or ""


def listed(text: str) -> list[str]:
    """The parts of a text between spaces or commas."""
    return [one for one in re.split(r"[\s,،;؛]+", text) if one]


def money_of(text: str, currency: str) -> dict[str, str]:
    """An amount as the API takes it, with `amount_of` its text."""
    return {"currency": currency, "value": amount_of(text, currency)}


def amount_of(text: str, currency: str) -> str:
    """An amount with exactly the decimals of its currency; unchanged where it has more, or is no number."""
    written = latin(text)
    found = _AMOUNT.fullmatch(written)
    places = DIGITS.get(currency)
    if found is None or places is None or len(found[2] or "") > places:
        return written
    whole = found[1].lstrip("0") or "0"
    return f"{whole}.{(found[2] or '').ljust(places, '0')}" if places else whole


def _share_bps(text: str) -> int | str:
    """Per cent with up to two decimals in ten-thousandths."""
    written = latin(text).removesuffix("%").strip()
    found = _SHARE.fullmatch(written)
    return written if found is None else int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))


def moment_of(text: str) -> str | None:
    """What a browser's field of date and time holds, in UTC as the API takes it; None if it is empty."""
    written = latin(text)
    if not written:
        return None
    return f"{written}:00Z" if len(written) == _MINUTES else f"{written}Z"
