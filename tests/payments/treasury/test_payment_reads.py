"""Payments as a treasurer lists and reads them."""

from __future__ import annotations

import pytest

from backbone import ids
from tests.payments.books import Books
from tests.payments.harness import a_drive
from tests.payments.stripe_events import dispute, intent_succeeded, metadata, refund
from tests.payments.treasury.treasury_api import ADMIN, OWNER, TreasuryApi, owned_drive


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    store: str = request.param
    return store


@pytest.fixture
def api(books: Books) -> TreasuryApi:
    return TreasuryApi(books)


async def test_payment_shows_facts_postings_and_amounts(api: TreasuryApi) -> None:
    drive = owned_drive()
    payment, pledge = await api.paid(drive)
    await api.books.apply(
        [
            refund("created", "re_1", "pi_1", 500, "pending"),
            dispute("created", "dp_1", "pi_1", 700, "needs_response", currency="zzz"),
        ]
    )
    shown = await api.payment(payment)
    assert (shown["pledge"], shown["drive"], shown["status"]) == (pledge, drive.drive_id, "disputed")
    assert shown["captured"] == shown["reporting_amount"] == {"currency": "USD", "value": "25.00"}
    assert (shown["refunded"]["value"], shown["disputed"]["value"]) == ("5.00", "20.00")
    assert (shown["held"], shown["fee"], shown["payout"], shown["decisions"]) == (None, None, None, [])
    assert {(each["kind"], each["id"], each["status"]) for each in shown["facts"]} == {
        ("capture", "pi_1", "succeeded"),
        ("refund", "re_1", "pending"),
        ("dispute", "dp_1", "open"),
    }
    foreign = next(each for each in shown["facts"] if each["id"] == "dp_1")
    assert foreign["amount"] is None  # a currency that this version does not know
    moves = [(each["debit"], each["credit"], each["amount"]["value"]) for each in shown["postings"]]
    assert moves[0] == ("processor_clearing", "drive_raised", "25.00")
    assert sorted(moves[1:]) == [
        ("disputes", "processor_clearing", "20.00"),
        ("refunds", "processor_clearing", "5.00"),
    ]
    assert {each["payment"] for each in shown["postings"]} == {payment}


async def test_list_is_newest_first_in_pages_and_filtered(api: TreasuryApi) -> None:
    drive, other = owned_drive(), owned_drive(slug="spring")
    paid = [(await api.paid(drive, intent=f"pi_{n}"))[0] for n in range(5)]
    elsewhere, _ = await api.paid(other, 2_400, intent="pi_x")
    await api.books.apply([refund("created", "re_1", "pi_1", 2_500, "succeeded")])
    pledges = [(await api.get(f"/v1/payments/{one}")).json()["pledge"] for one in paid]
    seen, after = [], ""
    while after is not None:
        page = (await api.get("/v1/payments", f"drive=winter&limit=2{after and f'&after={after}'}")).json()
        seen += [each["id"] for each in page["data"]]
        after = page["next"]
    assert seen == paid[::-1]
    for query, found in (
        ("", [elsewhere, *paid[::-1]]),
        ("limit=3", [elsewhere, *paid[:2:-1]]),
        ("drive=winter&status=refunded", [paid[1]]),
        ("status=refunded", [paid[1]]),
        ("drive=winter&status=captured", [each for each in paid[::-1] if each != paid[1]]),
        ("held=true", [elsewhere]),
        (f"drive={drive.drive_id}&held=true", []),
        ("held=true&status=captured", [elsewhere]),
        ("held=true&status=disputed", []),
        ("status=disputed", []),
        (f"pledge={pledges[3]}", [paid[3]]),
        (f"pledge={pledges[3]}&drive={other.drive_id}", []),
        (f"pledge={pledges[1]}&status=refunded", [paid[1]]),
        (f"pledge={ids.new('plg')}", []),
    ):
        for caller in ({}, ADMIN):
            reply = await api.get("/v1/payments", query, **caller)
            assert reply.status == 200, reply.body
            assert [each["id"] for each in reply.json()["data"]] == found, query


async def test_payments_are_shown_to_their_drives_owner_and_admins(api: TreasuryApi) -> None:
    payment, _ = await api.paid(owned_drive())
    theirs, _ = await api.paid(a_drive(slug="theirs", partner="neighbour"), intent="pi_2")
    ids = [each["id"] for each in (await api.get("/v1/payments")).json()["data"]]
    assert ids == [payment]
    assert (await api.get("/v1/payments", partner="nobody")).json() == {"data": [], "next": None}
    refused = (403, "/problems/not-your-drive")
    for path, query in ((f"/v1/payments/{theirs}", ""), ("/v1/payments", "drive=theirs")):
        reply = await api.get(path, query)
        assert (reply.status, reply.json()["type"]) == refused
        assert (await api.get(path, query, partner="neighbour")).status == 200
        assert (await api.get(path, query, **ADMIN)).status == 200
        assert (await api.get(path, query, partner="neighbour", scopes=("refunds",))).status == 403
        assert (await api.get(path, query, partner="neighbour", mode="test")).status == 403
    assert (await api.get("/v1/payments", mode="test")).json()["data"] == []


async def test_owner_of_a_drive_whose_events_name_none_is_asked_of_pledges(api: TreasuryApi) -> None:
    drive = a_drive()
    api.pledges.owners[drive.drive_id] = OWNER
    payment, _ = await api.paid(drive)
    assert (await api.get(f"/v1/payments/{payment}")).status == 200
    assert (await api.get(f"/v1/payments/{payment}", partner="neighbour")).status == 403


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("drive=unknown", 404), ("drive=%00", 404), ("drive=W%C4%B0nter", 404), ("status=lapsed", 422),
        ("held=maybe", 422), ("limit=0", 422), ("limit=101", 422), ("after=x", 422),
        ("after=9999999999999999999", 422), ("after=-1", 422), ("after=999999999999999999", 200),
    ],
)  # fmt: skip
async def test_bad_parameters_get_a_problem_document(api: TreasuryApi, query: str, status: int) -> None:
    await api.paid(owned_drive())
    assert (await api.get("/v1/payments", query)).status == status
    assert (await api.get("/v1/payments", query, **ADMIN)).status == status


@pytest.mark.parametrize("payment", ["pay_1", "pay_\x00", "plg_00000000000000000000000000", "%ff"])
async def test_unknown_payment_is_not_found(api: TreasuryApi, payment: str) -> None:
    assert (await api.get(f"/v1/payments/{payment}", **ADMIN)).status == 404


async def test_second_capture_is_listed_as_a_payment_of_its_own(api: TreasuryApi) -> None:
    drive = owned_drive()
    payment, pledge = await api.paid(drive)
    ours = metadata(payment, pledge, drive.drive_id)
    await api.books.apply([intent_succeeded("pi_2", 2_500, ours)])
    listed = (await api.get("/v1/payments", "drive=winter")).json()["data"]
    assert [each["pledge"] for each in listed] == [pledge, pledge]
    assert {each["id"] for each in listed} > {payment}
