"""Zakat is posted to accounts of its own, whatever happens to it and in whatever order it is reported."""

from __future__ import annotations

import csv
import io
from functools import partial
from typing import Any

import pytest

from backbone.contracts import PledgeChanged, PledgeMade, decode
from backbone.money import Money
from services.payments.processor import Movement
from services.payments.proof.tracing import tell
from services.payments.settlement.record import record_movements
from tests.payments.books import Books
from tests.payments.harness import a_pledge
from tests.payments.matching.gifts import add_pool
from tests.payments.rates.test_payments_in_other_currencies import set_rate
from tests.payments.stripe_events import dispute, intent_succeeded, metadata, refund
from tests.payments.treasury.treasury_api import ADMIN, TreasuryApi, owned_drive


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    store: str = request.param
    return store


@pytest.fixture
def api(books: Books) -> TreasuryApi:
    return TreasuryApi(books)


async def charge(books: Books, intent: str, fee: int, name: str = "txn_1", currency: str = "USD") -> None:
    """Read the balance transaction of a capture."""
    now = books.clock.now()
    movement = Movement(name, "charge", "ch_1", intent, 2_500, fee, currency, None, now, now)
    async with books.database.transaction() as session:
        await record_movements(session, [movement], now)


async def test_everything_about_zakat_is_in_its_own_accounts(api: TreasuryApi) -> None:
    payment, _ = await api.paid(owned_drive(), purpose="zakat")
    await charge(api.books, "pi_1", 103)
    await api.books.apply(
        [
            refund("created", "re_1", "pi_1", 600, "succeeded"),
            dispute("created", "dp_1", "pi_1", 400, "needs_response", at=1_700_000_000),
        ]
    )
    assert await api.books.balances(payment) == {
        "drive_raised_zakat": -2_500,
        "refunds_zakat": 600,
        "disputes_zakat": 400,
        "processor_fees_zakat": 103,
        "processor_clearing": 1_397,
    }
    assert (await api.books.drift())["USD"] == 0
    await api.books.apply(
        [
            refund("failed", "re_1", "pi_1", 600, "failed"),
            dispute("closed", "dp_1", "pi_1", 400, "won", at=1_700_000_100),
        ]
    )
    returned = {"drive_raised_zakat": -2_500, "processor_fees_zakat": 103, "processor_clearing": 2_397}
    assert await api.books.balances(payment) == returned
    assert (await api.payment(payment))["fund"] == "zakat"


@pytest.mark.parametrize("purpose", [None, "sadaqah", "something of a later version"])
async def test_what_is_not_zakat_is_general(api: TreasuryApi, purpose: str | None) -> None:
    payment, _ = await api.paid(owned_drive(), purpose=purpose)
    assert await api.books.balances(payment) == {"drive_raised": -2_500, "processor_clearing": 2_500}
    assert (await api.payment(payment))["fund"] == "general"


async def test_money_that_came_before_its_pledge_is_moved_with_its_fee(api: TreasuryApi) -> None:
    books, drive = api.books, owned_drive()
    pledge = a_pledge(drive, purpose="zakat")
    await books.consume(drive)
    await books.apply([intent_succeeded("pi_1", 2_500, metadata(None, pledge.pledge_id, drive.drive_id))])
    await books.apply([refund("created", "re_1", "pi_1", 600, "succeeded")])
    await charge(books, "pi_1", 103)
    general = {"drive_raised": -2_500, "refunds": 600, "processor_fees": 103, "processor_clearing": 1_797}
    assert await books.drive_balances(drive.drive_id) == general
    await books.consume(pledge, pledge)
    moved = {name if name == "processor_clearing" else f"{name}_zakat": of for name, of in general.items()}
    assert await books.drive_balances(drive.drive_id) == moved
    assert (await books.drift())["USD"] == 0


async def test_the_fund_never_changes_after_the_first_state_of_the_pledge(api: TreasuryApi) -> None:
    drive = owned_drive()
    await api.books.consume(drive)
    for first, later in (("zakat", "sadaqah"), (None, "zakat")):
        pledge = a_pledge(drive, purpose=first)
        await api.books.consume(pledge, pledge.model_copy(update={"version": 2, "purpose": later}))
        changed = pledge.model_dump() | {"version": 3, "platform": "kick"}
        await api.books.consume(PledgeChanged(**changed))
        (row,) = await api.books.payments(pledge.pledge_id)
        assert row.zakat is (first == "zakat")


async def test_a_second_capture_on_a_pledge_is_in_the_fund_of_the_first(api: TreasuryApi) -> None:
    drive = owned_drive()
    _, pledge = await api.paid(drive, purpose="zakat")
    await api.books.apply([intent_succeeded("pi_2", 2_500, metadata(None, pledge, drive.drive_id))])
    assert await api.books.drive_balances(drive.drive_id) == {
        "drive_raised_zakat": -5_000,
        "processor_clearing": 5_000,
    }


async def test_held_zakat_is_in_no_fund_until_it_is_released(api: TreasuryApi) -> None:
    payment, _ = await api.paid(owned_drive(), 2_600, purpose="zakat")
    assert await api.books.balances(payment) == {"held": -2_600, "processor_clearing": 2_600}
    assert (await api.release(payment)).status == 200
    assert await api.books.balances(payment) == {"drive_raised_zakat": -2_600, "processor_clearing": 2_600}


async def test_zakat_is_released_into_another_drive_only_if_it_takes_zakat(api: TreasuryApi) -> None:
    payment, _ = await api.paid(owned_drive(), 2_600, purpose="zakat")
    await charge(api.books, "pi_1", 103)
    other = owned_drive(slug="summer")
    await api.books.consume(other)
    for known in ({}, {"zakat_eligible": False}):
        api.pledges.drives[other.drive_id] = {"id": other.drive_id, **known}
        reply = await api.release(payment, drive="summer")
        assert (reply.status, reply.json()["type"]) == (409, "/problems/drive-does-not-match")
        assert "zakat" in reply.json()["detail"]
    api.pledges.drives[other.drive_id] = {"id": other.drive_id, "zakat_eligible": True}
    assert (await api.release(payment, drive="summer")).status == 200
    assert await api.books.drive_balances(other.drive_id) == {
        "drive_raised_zakat": -2_600,
        "processor_fees_zakat": 103,
        "processor_clearing": 2_497,
    }


async def test_releasing_other_gifts_into_another_drive_asks_pledges_nothing(api: TreasuryApi) -> None:
    payment, _ = await api.paid(owned_drive(), 2_600)
    await api.books.consume(owned_drive(slug="summer"))
    assert (await api.release(payment, drive="summer")).status == 200
    assert api.pledges.drives_asked == 0


async def test_what_a_sponsor_adds_to_zakat_is_not_zakat(api: TreasuryApi) -> None:
    drive = owned_drive()
    await api.books.consume(drive)
    await add_pool(api.books, drive.drive_id, 10_000, 10_000)
    await api.paid(drive, purpose="zakat")
    assert await api.books.drive_balances(drive.drive_id) == {
        "drive_raised": -2_500,
        "drive_raised_zakat": -2_500,
        "matching_receivable": 2_500,
        "processor_clearing": 2_500,
    }
    (line,) = (await api.get("/v1/drives/winter/statement")).json()["currencies"]
    assert (line["raised"]["value"], line["zakat"]["raised"]["value"]) == ("50.00", "25.00")
    assert line["zakat"]["owed"]["value"] == "25.00"


async def a_drive_with_both(api: TreasuryApi) -> None:
    drive = owned_drive()
    await api.paid(drive, purpose="zakat")
    await api.paid(drive, intent="pi_2")
    await charge(api.books, "pi_1", 100)
    await charge(api.books, "pi_2", 200, "txn_2")
    await api.books.apply(
        [
            refund("created", "re_1", "pi_1", 300, "succeeded"),
            refund("created", "re_2", "pi_2", 700, "succeeded"),
            dispute("created", "dp_1", "pi_1", 400, "needs_response", at=1_700_000_000),
        ]
    )


def values(line: dict[str, Any], *names: str) -> dict[str, str]:
    return {name: line[name]["value"] for name in names}


async def test_the_statement_shows_zakat_beside_the_whole(api: TreasuryApi) -> None:
    await a_drive_with_both(api)
    (line,) = (await api.get("/v1/drives/winter/statement")).json()["currencies"]
    whole = {"gross": "50.00", "refunds": "10.00", "disputes": "4.00", "raised": "36.00", "fees": "3.00"}
    assert values(line, *whole) == whole
    zakat = {"gross": "25.00", "refunds": "3.00", "disputes": "4.00", "raised": "18.00", "fees": "1.00"}
    zakat |= {"paid_out": "0.00", "owed": "17.00"}
    assert values(line["zakat"], *line["zakat"]) == zakat
    body = (await api.accept_csv("/v1/drives/winter/statement")).body.decode()
    rows = {(row[1], row[2]): row[3] for row in csv.reader(io.StringIO(body))}
    assert {f"zakat_{name}": value for name, value in zakat.items()} == {
        name: value for (name, _), value in rows.items() if name.startswith("zakat_")
    }
    assert rows["gross", ""] == "50.00"


async def test_the_trial_balance_has_the_accounts_of_both(api: TreasuryApi) -> None:
    await a_drive_with_both(api)
    balance = (await api.get("/v1/drives/winter/trial-balance")).json()
    found = {each["account"]: each["balance"]["value"] for each in balance["accounts"]}
    assert found == {
        "disputes_zakat": "4.00",
        "drive_raised": "-25.00",
        "drive_raised_zakat": "-25.00",
        "processor_clearing": "33.00",
        "processor_fees": "2.00",
        "processor_fees_zakat": "1.00",
        "refunds": "7.00",
        "refunds_zakat": "3.00",
    }
    assert balance["sums"][0]["debit"] == balance["sums"][0]["credit"]


async def test_zakat_in_another_currency_counts_at_its_frozen_rate(api: TreasuryApi) -> None:
    drive = owned_drive(currencies=["EUR"])
    await api.books.consume(drive)
    await set_rate(api.books, "EUR", "1.1")
    pledge = a_pledge(drive, purpose="zakat", amount=Money(1_000, "EUR"))
    await api.books.consume(pledge)
    ours = metadata(None, pledge.pledge_id, drive.drive_id)
    await api.books.apply([intent_succeeded("pi_1", 1_000, ours, "eur")])
    own, euros = (await api.get("/v1/drives/winter/statement")).json()["currencies"]
    assert values(own["zakat"], "raised", "owed") == {"raised": "11.00", "owed": "11.00"}
    assert (euros["zakat"]["raised"]["value"], euros["zakat"]["owed"]) == ("10.00", None)


async def test_events_before_purposes_are_read_as_general(api: TreasuryApi) -> None:
    pledge = a_pledge(owned_drive(), purpose="zakat")
    fields = pledge.model_dump(mode="json")
    del fields["purpose"]
    old = decode("pledges.pledge_made.v1", PledgeMade.model_validate(fields).to_bytes())
    assert isinstance(old, PledgeMade)
    await api.books.consume(old)
    (row,) = await api.books.payments(old.pledge_id)
    assert row.zakat is False


async def test_an_admin_reads_the_fund_in_a_list(api: TreasuryApi) -> None:
    await api.paid(owned_drive(), purpose="zakat")
    (shown,) = (await api.get("/v1/payments", **ADMIN)).json()["data"]
    assert shown["fund"] == "zakat"


async def test_the_story_of_a_gift_says_that_it_is_zakat(api: TreasuryApi) -> None:
    _, zakat = await api.paid(owned_drive(), purpose="zakat")
    _, other = await api.paid(owned_drive(), intent="pi_2")
    for pledge, told in ((zakat, True), (other, False)):
        story = await api.books.database.read_whole(partial(tell, pledge_id=pledge))
        lines = [each.text for each in story.steps]
        assert any("it is zakat, posted to accounts of its own" in line for line in lines) is told
        assert any("from drive_raised_zakat to processor_clearing" in line for line in lines) is told
