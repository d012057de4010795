"""Tables as CSV (RFC 4180) for callers that accept `text/csv`.

A spreadsheet evaluates a cell that begins like a formula. Such texts are neutralised with a leading
apostrophe, as OWASP recommends (owasp.org/www-community/attacks/CSV_Injection); numbers stay numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

from fastapi import Response

_FORMULA: Final = re.compile(r"\s*[=+\-@＝＋－＠]|[\x00-\x1f\x7f]")
"""How a text begins that a spreadsheet may evaluate: an operator, also full-width or after spaces, or a
control character."""
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)


def wants_csv(accept: str | None) -> bool:
    """Whether an `Accept` header names `text/csv`, and not with a quality of 0 (RFC 9110, 12.5.1)."""
    for entry in (accept or "").lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        if kind == "text/csv":
            return not any(re.fullmatch(r"q\s*=\s*0(\.0{0,3})?", one) for one in parameters)
    return False


def cell(value: str | int | None) -> str:
    """The text of a cell: numbers unchanged, texts neutralised, None empty."""
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, int) or _NUMBER.fullmatch(text) or not _FORMULA.match(text):
        return text
    return f"'{text}"


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str | int | None]]) -> str:
    """A header line and one line a row, each ending in CR LF."""
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\r\n")
    lines.writerow(columns)
    lines.writerows([cell(value) for value in row] for row in rows)
    return written.getvalue()


def csv_reply(columns: Sequence[str], rows: Iterable[Sequence[str | int | None]], name: str) -> Response:
    """The table as an attachment called `name`; `name` is ASCII without quotes."""
    return Response(
        csv_text(columns, rows),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )
