"""Refunds, failed refunds and disputes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import stripe

from sandbox.journal import Journal
from sandbox.payment_intents import DISPUTE_AFTER_S
from sandbox.records import Dispute
from tests.sandbox.harness import Donor, Receiver
from tests.waiting import until


async def test_partial_refunds_end_when_nothing_is_left(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate(2500)
    first = await donor.refund(payment, 1000)
    assert (first.amount, first.status, first.payment_intent) == (1000, "succeeded", payment)
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        await donor.refund(payment, 1501)
    assert (await donor.refund(payment)).amount == 1500
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await donor.refund(payment)
    assert refused.value.code == "charge_already_refunded"
    listed = await donor.stripe.v1.refunds.list_async({"payment_intent": payment})
    assert [refund.amount for refund in listed.data] == [1500, 1000]
    charge = await donor.stripe.v1.charges.retrieve_async("ch_" + payment[3:])
    assert (charge.amount_refunded, charge.refunded) == (2500, True)
    await until(lambda: receiver.types.count("refund.updated") == 2)
    assert receiver.types.count("refund.created") == receiver.types.count("charge.refunded") == 2


async def test_refund_by_charge_keeps_metadata_and_reason(donor: Donor) -> None:
    payment = await donor.donate()
    refund = await donor.stripe.v1.refunds.create_async(
        {
            "charge": "ch_" + payment[3:],
            "amount": 5,
            "reason": "requested_by_customer",
            "metadata": {"ataa_refund": "rfd_1"},
        }
    )
    again = await donor.stripe.v1.refunds.retrieve_async(refund.id)
    assert again.metadata is not None
    assert (again.metadata["ataa_refund"], again.reason) == ("rfd_1", "requested_by_customer")


async def test_unpaid_session_cannot_be_refunded(donor: Donor) -> None:
    session = await donor.session()
    declined = await donor.pay(session.id, "4000000000000002")
    with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge"):
        await donor.refund(declined["payment_intent"])
    with pytest.raises(stripe.InvalidRequestError):
        await donor.refund("pi_unknown")


async def test_failed_refund_returns_to_the_books(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate(2500, "4000000000005126")
    refund = await donor.refund(payment, 1000)
    assert (await donor.books())["USD"]["refunded"] == "10.00"
    await until(lambda: "refund.failed" in receiver.types)
    assert receiver.of("refund.failed")[0]["id"] == refund.id
    assert (await donor.books())["USD"]["refunded"] == "0.00"
    assert (await donor.stripe.v1.refunds.retrieve_async(refund.id)).status == "failed"
    assert (await donor.refund(payment)).amount == 2500


async def test_pending_refund_counts_and_succeeds_later(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate(2500, "4000000000007726")
    assert (await donor.refund(payment)).status == "pending"
    assert (await donor.books())["USD"]["refunded"] == "25.00"
    await until(lambda: "refund.updated" in receiver.types)
    assert receiver.of("refund.updated")[0]["status"] == "succeeded"


async def test_disputed_card_is_disputed_within_three_seconds(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate(2500, "4000000000000259")
    await until(lambda: "charge.dispute.funds_withdrawn" in receiver.types)
    assert DISPUTE_AFTER_S < 3
    dispute = receiver.of("charge.dispute.created")[0]
    assert (dispute["payment_intent"], dispute["status"]) == (payment, "needs_response")
    listed = await donor.stripe.v1.disputes.list_async({"payment_intent": payment})
    assert [each.id for each in listed.data] == [dispute["id"]]
    assert (await donor.books())["USD"]["disputed"] == "25.00"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await donor.refund(payment)
    assert refused.value.code == "charge_disputed"


async def test_won_dispute_returns_the_money(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate()
    status, opened = await donor.dispute(payment, "needs_response")
    assert (status, opened["status"]) == (200, "needs_response")
    assert (await donor.dispute(payment, "needs_response"))[1]["id"] == opened["id"]
    assert (await donor.dispute(payment, "won"))[1]["status"] == "won"
    assert (await donor.books())["USD"]["disputed"] == "0.00"
    await until(lambda: "charge.dispute.funds_reinstated" in receiver.types)
    assert receiver.types.count("charge.dispute.created") == 1
    assert receiver.of("charge.dispute.closed")[0]["status"] == "won"
    assert (await donor.dispute(payment, "needs_response"))[0] == 409


async def test_lost_dispute_stays_in_the_books(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate()
    for _ in range(2):
        assert (await donor.dispute(payment, "lost"))[1]["status"] == "lost"
    books = (await donor.books())["USD"]
    assert (books["disputed"], books["net"]) == ("25.00", "-16.03")
    await until(lambda: receiver.types.count("charge.dispute.closed") == 1)
    assert "charge.dispute.funds_reinstated" not in receiver.types


def moves(dispute: dict[str, Any]) -> list[int]:
    return [each["amount"] for each in dispute["balance_transactions"]]


async def test_won_dispute_can_be_lost_later(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate()
    assert moves((await donor.dispute(payment, "won"))[1]) == [-2500, 2500]
    status, lost = await donor.dispute(payment, "lost")
    assert (status, lost["status"], moves(lost)) == (200, "lost", [-2500, 2500, -2500])
    assert (await donor.books())["USD"]["disputed"] == "25.00"
    await until(lambda: receiver.types.count("charge.dispute.funds_withdrawn") == 2)
    assert (await donor.dispute(payment, "won"))[0] == 409


async def test_lost_dispute_returns_an_earlier_partial_refund(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate()
    await donor.refund(payment, 1000)
    opened = (await donor.dispute(payment, "needs_response", amount=2500))[1]
    assert (opened["amount"], moves(opened)) == (2500, [-2500])
    books = (await donor.books())["USD"]
    assert (books["refunded"], books["disputed"], books["net"]) == ("10.00", "25.00", "-26.03")
    assert moves((await donor.dispute(payment, "lost"))[1]) == [-2500, 1000]
    books = (await donor.books())["USD"]
    assert (books["refunded"], books["disputed"], books["net"]) == ("10.00", "15.00", "-16.03")
    await until(lambda: "charge.dispute.funds_reinstated" in receiver.types)


@pytest.mark.parametrize(("case_type", "disputed"), [("resolution", "25.00"), ("block", "0.00")])
async def test_prevented_dispute_withdraws_by_its_case_type(
    donor: Donor, case_type: str, disputed: str
) -> None:
    payment = await donor.donate()
    shown = (await donor.dispute(payment, "prevented", case_type=case_type))[1]
    assert shown["payment_method_details"]["card"]["case_type"] == case_type
    assert (await donor.books())["USD"]["disputed"] == disputed
    assert (await donor.dispute(payment, "won"))[0] == 409


async def test_inquiry_withdraws_nothing_until_it_becomes_a_dispute(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate()
    shown = (await donor.dispute(payment, "warning_needs_response"))[1]
    assert (moves(shown), shown["is_charge_refundable"]) == ([], True)
    await donor.refund(payment, 500)
    assert moves((await donor.dispute(payment, "needs_response"))[1]) == [-2000]
    await until(lambda: "charge.dispute.funds_withdrawn" in receiver.types)
    assert (await donor.books())["USD"]["disputed"] == "20.00"


async def test_dispute_can_be_in_the_cardholders_currency(donor: Donor) -> None:
    payment = await donor.donate()
    shown = (await donor.dispute(payment, "needs_response", amount=2300, currency="eur", withdrawn=2550))[1]
    assert (shown["amount"], shown["currency"]) == (2300, "eur")
    assert [each["currency"] for each in shown["balance_transactions"]] == ["usd"]
    assert (await donor.books())["USD"]["disputed"] == "25.50"


async def test_data_file_of_an_earlier_version_keeps_its_disputes(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    with sqlite3.connect(path) as before:
        before.execute(
            "CREATE TABLE disputes (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, created INTEGER NOT NULL,"
            " payment TEXT NOT NULL UNIQUE, amount INTEGER NOT NULL, currency TEXT NOT NULL,"
            " status TEXT NOT NULL)"
        )
        for n, status in enumerate(("needs_response", "won", "lost")):
            before.execute(
                "INSERT INTO disputes VALUES (?, ?, 1, ?, 700, 'USD', ?)", (n, f"dp_{n}", f"pi_{n}", status)
            )
    before.close()
    for _ in range(2):
        journal = Journal(path)
        rows = [Dispute.from_row(row) for row in journal.rows("SELECT * FROM disputes ORDER BY n")]
        journal.close()
        assert [(each.moved, each.withdrawn, each.settled_in) for each in rows] == [
            ([-700], 700, "USD"), ([-700, 700], 0, "USD"), ([-700], 700, "USD")
        ]  # fmt: skip


async def test_refunded_amount_cannot_be_disputed(donor: Donor) -> None:
    payment = await donor.donate(2500)
    await donor.refund(payment, 2000)
    assert (await donor.dispute(payment, "needs_response"))[1]["amount"] == 500
    refunded = await donor.donate(2500)
    await donor.refund(refunded)
    assert (await donor.dispute(refunded, "lost"))[0] == 400


@pytest.mark.parametrize(
    "session_params",
    [
        {},
        [],
        {"payment_intent": "pi_1"},
        {"payment_intent": "pi_1", "status": "open"},
        {"payment_intent": "pi_1", "status": "won", "amount": "5"},
        {"payment_intent": "pi_1", "status": "won", "amount": 0},
        {"payment_intent": "pi_1", "status": "won", "withdrawn": -1},
        {"payment_intent": "pi_1", "status": "won", "currency": "euro"},
        {"payment_intent": "pi_1", "status": "prevented", "case_type": "other"},
    ],
)
async def test_invalid_dispute_is_refused(donor: Donor, session_params: object) -> None:
    assert (await donor.post("/_sandbox/disputes", session_params))[0] == 422
