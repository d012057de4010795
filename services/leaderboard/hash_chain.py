"""Rows of a drive's public log, and the hashes that chain them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from backbone.clock import rfc3339
from backbone.money import Money, as_json

FIRST_HASH: Final = ""
"""The previous hash of the first row of a log."""


def public_row(
    sequence: int,
    type_: str,
    at: datetime,
    payment_id: str | None,
    pledge_id: str | None,
    creator_id: str | None,
    amount: int | None,
    raised_after: int,
    currency: str,
    given: Money | None = None,
) -> dict[str, Any]:
    """A row of a drive's log as `GET /v1/drives/{drive}/events` shows it, without its hash.

    Amounts are in minor units. `amount` is shown as it was `given`, with `reporting_amount` beside it, where
    that was in another currency than the drive's. The result equals `DriveLogged.as_row`, which adds the
    hash.
    """
    row = {
        "sequence": sequence,
        "type": type_,
        "at": rfc3339(at),
        "payment": payment_id,
        "pledge": pledge_id,
        "creator": creator_id,
        "amount": None if amount is None else as_json(amount, currency),
        "raised_after": as_json(raised_after, currency),
    }
    if given is not None and amount is not None:
        row |= {
            "amount": as_json(given.minor_units, given.currency),
            "reporting_amount": as_json(amount, currency),
        }
    return row


def hash_row(drive_id: str, epoch: int, row: Mapping[str, Any], previous: str) -> str:
    """The hash of a row of a drive's log, chained to the hash of the row before it.

    SHA-256, in hexadecimal, of canonical JSON in UTF-8: one object with `drive`, `epoch`, `previous` and the
    fields of the row as `GET /v1/drives/{drive}/events` shows it, without `hash`; names sorted, no spaces,
    everything outside ASCII escaped. `previous` is "" for the first row of an epoch.
    """
    hashed = {name: value for name, value in row.items() if name != "hash"}
    hashed |= {"drive": drive_id, "epoch": epoch, "previous": previous}
    return hashlib.sha256(canonical(hashed)).hexdigest()


def hash_new_row(
    drive_id: str,
    epoch: int,
    sequence: int,
    type_: str,
    at: str,
    payment_id: str | None,
    pledge_id: str | None,
    creator_id: str | None,
    amount: int | None,
    raised_after: int,
    currency: str,
    previous: str,
    given: Money | None = None,
) -> str:
    """`hash_row` of this row as `public_row` shows it, in a third of the time. `at` is RFC 3339."""
    before = (
        at,
        creator_id,
        drive_id,
        epoch,
        payment_id,
        pledge_id,
        previous,
        as_json(raised_after, currency),
    )
    reporting = None if amount is None else as_json(amount, currency)
    row: _HashedRow | _HashedGivenRow = (
        _HashedRow(reporting, *before, sequence, type_)
        if given is None or reporting is None
        else _HashedGivenRow(as_json(given.minor_units, given.currency), *before, reporting, sequence, type_)
    )
    text = _ENCODE(row)
    if not _is_canonical(text):
        text = canonical(msgspec.to_builtins(row))
    return hashlib.sha256(text).hexdigest()


class _HashedRow(msgspec.Struct):
    """What the hash of a row covers, in the order of canonical JSON."""

    amount: dict[str, str] | None
    at: str
    creator: str | None
    drive: str
    epoch: int
    payment: str | None
    pledge: str | None
    previous: str
    raised_after: dict[str, str]
    sequence: int
    type: str


class _HashedGivenRow(msgspec.Struct):
    """The same for a row whose amount was given in another currency."""

    amount: dict[str, str]
    at: str
    creator: str | None
    drive: str
    epoch: int
    payment: str | None
    pledge: str | None
    previous: str
    raised_after: dict[str, str]
    reporting_amount: dict[str, str]
    sequence: int
    type: str


def canonical(value: Mapping[str, Any]) -> bytes:
    """Canonical JSON: sorted names, no spaces, everything outside ASCII escaped."""
    quick = _ENCODE_SORTED(value)
    return quick if _is_canonical(quick) else _CANONICAL(value).encode()


def _is_canonical(text: bytes) -> bool:
    """Whether the JSON of msgspec is canonical: it escapes less than json does, and some in another way."""
    return text.isascii() and b"\\" not in text and b"\x7f" not in text


_ENCODE: Final = msgspec.json.Encoder().encode
_ENCODE_SORTED: Final = msgspec.json.Encoder(order="sorted").encode
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Flaw:
    """The first invalid row of a log, and the reason."""

    sequence: int
    reason: str


def verify(
    drive_id: str, epoch: int, rows: Iterable[Mapping[str, Any]], previous: str = FIRST_HASH, after: int = 0
) -> Flaw | None:
    """The first flaw of consecutive rows after row `after`, whose hash is `previous`; None if there is none.

    Finds gaps, repeats, wrong order, and every row or hash that was changed later.
    """
    for row in rows:
        after += 1
        if row["sequence"] != after:
            return Flaw(after, f"row {row['sequence']} where {after} should be")
        if hash_row(drive_id, epoch, row, previous) != row["hash"]:
            return Flaw(after, "the row and its hash do not fit together")
        previous = row["hash"]
    return None
