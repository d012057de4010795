"""A drive's ledger, trial balance and statement as the API shows them, in JSON and as CSV."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import Row

from backbone.clock import rfc3339
from backbone.http.fields import DriveIdView, MoneyView, TimestampView, with_examples
from backbone.money import as_json, decimal_string
from services.payments.treasury.balances import AccountSums, Statement
from services.payments.treasury.payment_views import PostingView

Cells = tuple[str | int | None, ...]
"""A row of a CSV."""

_DRIVE: Final = "drv_01frtz5n00000000000000000a"
_AT: Final = "2030-01-07T18:00:00.000Z"


def _usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


class LedgerPage(BaseModel):
    """A page of a drive's ledger, the oldest postings first."""

    data: list[PostingView]
    next: str | None


class AccountView(BaseModel):
    """The debits and credits of an account in one currency; `balance` is debits less credits."""

    account: str
    currency: str
    debit: MoneyView
    credit: MoneyView
    balance: MoneyView


class SumsView(BaseModel):
    """The debits and credits of all accounts in one currency: they are equal."""

    currency: str
    debit: MoneyView
    credit: MoneyView


class TrialBalanceView(BaseModel):
    """A drive's accounts, from its postings up to number `through`."""

    model_config = with_examples(
        {
            "drive": _DRIVE,
            "as_of": _AT,
            "through": 1,
            "accounts": [
                {
                    "account": "drive_raised", "currency": "USD", "debit": _usd("0.00"),
                    "credit": _usd("25.00"), "balance": _usd("-25.00"),
                },
                {
                    "account": "processor_clearing", "currency": "USD", "debit": _usd("25.00"),
                    "credit": _usd("0.00"), "balance": _usd("25.00"),
                },
            ],
            "sums": [{"currency": "USD", "debit": _usd("25.00"), "credit": _usd("25.00")}],
        }
    )  # fmt: skip

    drive: DriveIdView
    as_of: TimestampView
    through: int
    accounts: list[AccountView]
    sums: list[SumsView]


class OwedView(BaseModel):
    """What is still to be paid to a beneficiary."""

    beneficiary: str
    amount: MoneyView


class ZakatSums(BaseModel):
    """The part of a drive's money that donors gave as zakat; it is contained in the other lines.

    `raised` is gross less refunds and disputes, `owed` what may still be paid out as zakat: null in the
    entries of other currencies than the drive's.
    """

    gross: MoneyView
    refunds: MoneyView
    disputes: MoneyView
    raised: MoneyView
    fees: MoneyView
    paid_out: MoneyView
    owed: MoneyView | None


class StatementSums(BaseModel):
    """A drive's money in one currency.

    `gross` is captured and counted. `refunds` and `disputes` (open or lost) are of counted money; `raised` is
    gross, offline and matched less both. `held` is not counted. `late` is the part of `gross` that was
    captured after the drive closed; null where that moment is not known.

    The entry of the drive's currency contains what gifts in other currencies are worth at their frozen rates.
    The entries of those currencies have the same gifts as they were given.
    """

    currency: str
    gross: MoneyView
    offline: MoneyView
    matched: MoneyView
    refunds: MoneyView
    disputes: MoneyView
    raised: MoneyView
    held: MoneyView
    fees: MoneyView
    paid_out: MoneyView
    late: MoneyView | None
    owed: list[OwedView]
    zakat: ZakatSums


LINES: Final = (
    "gross", "offline", "matched", "refunds", "disputes", "raised", "held", "fees", "paid_out", "late",
)  # fmt: skip
"""The amounts of a statement, in the order of its CSV."""
ZAKAT_LINES: Final = tuple(ZakatSums.model_fields)
"""Those of its zakat; in the CSV their names begin with `zakat_`."""


class StatementView(BaseModel):
    """A drive's statement, from its postings up to number `through`: one entry a currency, its own first."""

    model_config = with_examples(
        {
            "drive": _DRIVE,
            "closed_at": None,
            "as_of": _AT,
            "through": 1,
            "currencies": [
                {"currency": "USD", "owed": []}
                | dict.fromkeys(LINES, _usd("0.00"))
                | {"gross": _usd("25.00"), "raised": _usd("25.00")}
                | {"zakat": dict.fromkeys(ZAKAT_LINES, _usd("0.00"))}
            ],
        }
    )

    drive: DriveIdView
    closed_at: TimestampView | None
    as_of: TimestampView
    through: int
    currencies: list[StatementSums]


POSTING_COLUMNS: Final = ("number", "at", "debit", "credit", "currency", "amount", "cause", "payment", "rate")
ACCOUNT_COLUMNS: Final = ("account", "currency", "debit", "credit", "balance")
STATEMENT_COLUMNS: Final = ("currency", "line", "beneficiary", "amount")


def posting_cells(row: Row[Any]) -> Cells:
    """A row of `postings` under `POSTING_COLUMNS`."""
    amount = decimal_string(row.units, row.currency)
    return (
        row.number, rfc3339(row.posted_at), row.debit, row.credit, row.currency, amount, row.cause,
        row.payment_id, row.rate,
    )  # fmt: skip


def trial_balance_json(
    drive: str, accounts: Sequence[AccountSums], through: int, at: datetime
) -> dict[str, Any]:
    """A trial balance in the shape of `TrialBalanceView`."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for each in accounts:
        sums[each.currency][0] += each.debit
        sums[each.currency][1] += each.credit
    return {
        "drive": drive,
        "as_of": rfc3339(at),
        "through": through,
        "accounts": [
            {
                "account": each.account,
                "currency": each.currency,
                "debit": as_json(each.debit, each.currency),
                "credit": as_json(each.credit, each.currency),
                "balance": as_json(each.debit - each.credit, each.currency),
            }
            for each in accounts
        ],
        "sums": [
            {"currency": name, "debit": as_json(debit, name), "credit": as_json(credit, name)}
            for name, (debit, credit) in sums.items()
        ],
    }


def account_cells(each: AccountSums) -> Cells:
    """An account under `ACCOUNT_COLUMNS`."""
    amounts = (decimal_string(units, each.currency) for units in (each.debit, each.credit))
    return (each.account, each.currency, *amounts, decimal_string(each.debit - each.credit, each.currency))


def statement_json(line: Statement) -> dict[str, Any]:
    """A statement in the shape of `StatementSums`."""
    return {
        "currency": line.currency,
        **_amounts(line, LINES, line.currency),
        "owed": [
            {"beneficiary": each.beneficiary, "amount": as_json(each.units, line.currency)}
            for each in line.owed
        ],
        "zakat": _amounts(line.zakat, ZAKAT_LINES, line.currency),
    }


def _amounts(of: object, names: Sequence[str], currency: str) -> dict[str, Any]:
    amounts = {name: getattr(of, name) for name in names}
    return {name: None if units is None else as_json(units, currency) for name, units in amounts.items()}


def statement_cells(line: Statement) -> Iterator[Cells]:
    """A statement under `STATEMENT_COLUMNS`, a row for each amount."""
    for name in LINES:
        units = getattr(line, name)
        yield line.currency, name, None, None if units is None else decimal_string(units, line.currency)
    for each in line.owed:
        yield line.currency, "owed", each.beneficiary, decimal_string(each.units, line.currency)
    for name in ZAKAT_LINES:
        units = getattr(line.zakat, name)
        amount = None if units is None else decimal_string(units, line.currency)
        yield line.currency, f"zakat_{name}", None, amount
