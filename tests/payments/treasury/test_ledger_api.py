"""A drive's ledger, trial balance and statement, in JSON and as CSV."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Executable, delete, text, update
from sqlalchemy.exc import DBAPIError

from backbone.contracts import DriveState
from services.payments.recording import ledger
from services.payments.recording.ledger import NewPosting
from services.payments.tables import POSTINGS
from services.payments.treasury.ledger_views import ZAKAT_LINES
from tests.payments.books import Books
from tests.payments.harness import a_drive
from tests.payments.stripe_events import refund
from tests.payments.treasury.treasury_api import ADMIN, TreasuryApi, owned_drive


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    store: str = request.param
    return store


@pytest.fixture
def api(books: Books) -> TreasuryApi:
    return TreasuryApi(books)


def table(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(body.decode(), newline="")))


async def test_ledger_is_read_in_pages_oldest_first(api: TreasuryApi) -> None:
    drive = owned_drive()
    payments = [(await api.paid(drive, intent=f"pi_{n}"))[0] for n in range(3)]
    await api.paid(owned_drive(slug="spring"), intent="pi_x")
    await api.books.apply([refund("created", "re_1", "pi_0", 500, "succeeded")])
    first = (await api.get("/v1/drives/winter/ledger", "limit=3")).json()
    rest = (await api.get(f"/v1/drives/{drive.drive_id}/ledger", f"limit=3&after={first['next']}")).json()
    assert rest["next"] is None
    rows = [*first["data"], *rest["data"]]
    assert [row["payment"] for row in rows] == [*payments, payments[0]]
    assert {name: rows[-1][name] for name in ("debit", "credit", "amount", "cause")} == {
        "debit": "refunds", "credit": "processor_clearing", "cause": "re_1#1",
        "amount": {"currency": "USD", "value": "5.00"},
    }  # fmt: skip
    assert table((await api.accept_csv("/v1/drives/winter/ledger")).body) == [
        ["number", "at", "debit", "credit", "currency", "amount", "cause", "payment", "rate"],
        *(
            [str(row["number"]), row["at"], row["debit"], row["credit"], "USD", row["amount"]["value"],
             row["cause"], row["payment"], ""]
            for row in rows
        ),
    ]  # fmt: skip
    second = await api.accept_csv("/v1/drives/winter/ledger", f"limit=1&after={rows[0]['number']}")
    assert [row[0] for row in table(second.body)] == ["number", str(rows[1]["number"])]
    assert second.headers["content-disposition"] == 'attachment; filename="winter-ledger.csv"'


async def test_statement_of_every_account(api: TreasuryApi) -> None:
    """Accounts that other parts post to appear by themselves; what sponsors promised is not owed."""
    shares = [{"name": "Red Crescent", "share_bps": 3_333}, {"name": "Tents", "share_bps": 6_667}]
    drive = owned_drive(beneficiaries=shares)
    await api.paid(drive)
    await api.paid(drive, 2_600, intent="pi_2")
    posted = [
        (ledger.FEES, ledger.CLEARING, 103), (ledger.BANK, ledger.CLEARING, 2_000),
        (ledger.OFFLINE_CLEARING, ledger.RAISED, 700), (ledger.RAISED, ledger.OFFLINE_CLEARING, 100),
        (ledger.MATCHING_RECEIVABLE, ledger.RAISED, 2_500), (ledger.BANK, ledger.MATCHING_RECEIVABLE, 900),
        (ledger.BENEFICIARY_PAYABLE, ledger.DISBURSED, 1_500),
    ]  # fmt: skip
    new = [
        (NewPosting(debit, credit, units, "USD", f"x#{n}"), None, drive.drive_id)
        for n, (debit, credit, units) in enumerate(posted)
    ]
    async with api.books.database.transaction() as session:
        await ledger.post(session, new, api.books.clock.now())
    await api.books.apply([refund("created", "re_1", "pi_1", 500, "succeeded")])
    statement = (await api.get("/v1/drives/winter/statement")).json()
    (line,) = statement["currencies"]
    amounts = {
        name: each["value"] for name, each in line.items() if name not in ("currency", "owed", "zakat")
    }
    expected = {
        "gross": "25.00", "offline": "6.00", "matched": "25.00", "refunds": "5.00", "disputes": "0.00",
        "raised": "51.00", "held": "26.00", "fees": "1.03", "paid_out": "15.00", "late": "0.00",
    }  # fmt: skip
    assert amounts == expected
    owed = {each["beneficiary"]: each["amount"]["value"] for each in line["owed"]}
    assert owed == {"Red Crescent": "8.32", "Tents": "16.65"}
    rows = table((await api.accept_csv("/v1/drives/winter/statement")).body)
    assert rows == [
        ["currency", "line", "beneficiary", "amount"],
        *(["USD", name, "", value] for name, value in expected.items()),
        ["USD", "owed", "Red Crescent", "8.32"],
        ["USD", "owed", "Tents", "16.65"],
        *(["USD", f"zakat_{name}", "", "0.00"] for name in ZAKAT_LINES),
    ]


async def test_trial_balance_has_equal_sums_in_each_currency(api: TreasuryApi) -> None:
    drive = owned_drive()
    await api.paid(drive)
    await api.books.consume(owned_drive("EUR", slug="spring"))
    balance = (await api.get("/v1/drives/winter/trial-balance")).json()
    assert balance["sums"] == [
        {
            "currency": "USD",
            "debit": {"currency": "USD", "value": "25.00"},
            "credit": {"currency": "USD", "value": "25.00"},
        }
    ]
    accounts = {each["account"]: each["balance"]["value"] for each in balance["accounts"]}
    assert accounts == {"drive_raised": "-25.00", "processor_clearing": "25.00"}
    assert table((await api.accept_csv("/v1/drives/winter/trial-balance")).body) == [
        ["account", "currency", "debit", "credit", "balance"],
        ["drive_raised", "USD", "0.00", "25.00", "-25.00"],
        ["processor_clearing", "USD", "25.00", "0.00", "25.00"],
    ]
    empty = (await api.get("/v1/drives/spring/trial-balance")).json()
    assert (empty["accounts"], empty["sums"], empty["through"]) == ([], [], 0)
    (line,) = (await api.get("/v1/drives/spring/statement")).json()["currencies"]
    assert line["gross"] == {"currency": "EUR", "value": "0.00"}


async def test_late_money_was_captured_after_the_drive_closed(api: TreasuryApi) -> None:
    at = datetime.now(UTC)
    drive = owned_drive()
    await api.paid(drive)
    closed = {"version": 2, "state": DriveState.CLOSED}
    moments = ((at + timedelta(hours=1), "0.00"), (at - timedelta(hours=1), "25.00"))
    for version, (closed_at, late) in enumerate(moments, 2):
        slug = f"drive-{version}"
        other = owned_drive(slug=slug)
        await api.paid(other, intent=f"pi_{slug}")
        await api.books.consume(other.model_copy(update=closed | {"changed_at": closed_at}))
        # A later change of a closed drive does not close it again.
        await api.books.consume(other.model_copy(update=closed | {"version": 3, "title": "Thank you"}))
        shown = (await api.get(f"/v1/drives/{slug}/statement")).json()
        assert datetime.fromisoformat(shown["closed_at"]) - closed_at < timedelta(seconds=1)
        assert shown["currencies"][0]["late"]["value"] == late
    shown = (await api.get("/v1/drives/winter/statement")).json()
    assert (shown["closed_at"], shown["currencies"][0]["late"]["value"]) == (None, "0.00")


async def test_since_when_a_drive_is_closed_may_be_unknown(api: TreasuryApi) -> None:
    drive = owned_drive()
    await api.paid(drive)
    async with api.books.database.transaction() as session:  # as a process of an earlier version does
        await session.execute(text("UPDATE drives SET state = 'closed'"))
    (line,) = (await api.get("/v1/drives/winter/statement")).json()["currencies"]
    assert line["late"] is None
    assert ["USD", "late", "", ""] in table((await api.accept_csv("/v1/drives/winter/statement")).body)


@pytest.mark.parametrize("path", ["ledger", "trial-balance", "statement"])
async def test_only_owner_and_admins_read_a_ledger(api: TreasuryApi, path: str) -> None:
    await api.books.consume(owned_drive(), a_drive(slug="theirs", partner="neighbour"))
    assert (await api.get(f"/v1/drives/winter/{path}")).status == 200
    assert (await api.get(f"/v1/drives/winter/{path}", **ADMIN)).status == 200
    refused = await api.get(f"/v1/drives/theirs/{path}")
    assert (refused.status, refused.json()["type"]) == (403, "/problems/not-your-drive")
    assert (await api.get(f"/v1/drives/winter/{path}", scopes=("refunds",))).status == 403
    assert (await api.get(f"/v1/drives/winter/{path}", mode="test")).status == 403
    for unknown in ("none", "W\x00", "%00", "x" * 65):
        assert (await api.get(f"/v1/drives/{unknown}/{path}")).status == 404


async def test_bad_parameters_of_a_ledger_are_refused(api: TreasuryApi) -> None:
    await api.books.consume(owned_drive())
    for query in ("limit=0", "limit=101", "limit=x", "after=x", "after=-1", "after=9999999999999999999"):
        assert (await api.get("/v1/drives/winter/ledger", query)).status == 422, query
        assert (await api.accept_csv("/v1/drives/winter/ledger", query)).status == 422, query


async def test_postings_are_never_updated_deleted_or_truncated(api: TreasuryApi, store: str) -> None:
    await api.paid(owned_drive())
    before = (await api.get("/v1/drives/winter/ledger")).body
    attempts: list[Executable] = [
        update(POSTINGS).values(units=1),
        update(POSTINGS).where(POSTINGS.c.units > 0).values(cause="x"),
        delete(POSTINGS),
    ]
    if store == "postgresql":
        attempts += [text("TRUNCATE postings"), text("TRUNCATE postings CASCADE")]  # SQLite has no TRUNCATE
    for statement in attempts:
        with pytest.raises(DBAPIError, match="never changed"):
            async with api.books.database.transaction() as session:
                await session.execute(statement)
    assert (await api.get("/v1/drives/winter/ledger")).body == before
