"""Balance transactions and payouts as Stripe's client reads them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import stripe

from sandbox.books import books
from sandbox.journal import Journal
from tests.sandbox.harness import Donor, Receiver
from tests.waiting import until


async def lines(donor: Donor, **filters: Any) -> list[Any]:
    """The balance transactions, oldest first, with their sources."""
    page = await donor.stripe.v1.balance_transactions.list_async(
        {"limit": 100, "expand": ["data.source"], **filters}  # type: ignore[typeddict-item]
    )
    return page.data[::-1]


async def pay_out(donor: Donor, **request: str) -> list[dict[str, Any]]:
    status, answer = await donor.post("/_sandbox/payouts", request)
    assert status == 200, answer
    return list(answer["data"])


async def test_every_movement_has_a_transaction_with_its_fee_and_source(donor: Donor) -> None:
    kept = await donor.donate(2500)
    refund = await donor.refund(kept, 1000)
    disputed = await donor.donate(1000)
    dispute = (await donor.dispute(disputed, "needs_response"))[1]
    await donor.dispute(disputed, "won")
    found = await lines(donor)
    assert [(line.type, line.amount, line.fee, line.net, line.reporting_category) for line in found] == [
        ("charge", 2500, 103, 2397, "charge"),
        ("refund", -1000, 0, -1000, "refund"),
        ("charge", 1000, 59, 941, "charge"),
        ("adjustment", -1000, 1500, -2500, "dispute"),
        ("adjustment", 1000, -1500, 2500, "dispute_reversal"),
    ]
    assert [line.source.id for line in found[1::2]] == [refund.id, dispute["id"]]
    assert [line.source.payment_intent for line in found] == [kept, kept, disputed, disputed, disputed]
    intent = await donor.stripe.v1.payment_intents.retrieve_async(
        kept, {"expand": ["latest_charge.balance_transaction"]}
    )
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert isinstance(intent.latest_charge.balance_transaction, stripe.BalanceTransaction)
    assert intent.latest_charge.balance_transaction.net == 2397
    assert (await donor.books())["USD"]["fees"] == "1.62"


async def test_failed_refund_returns_by_a_transaction_of_its_own(donor: Donor) -> None:
    payment = await donor.donate(2500, card="4000000000005126")
    refund = await donor.refund(payment)

    async def returned() -> list[Any]:
        return await lines(donor, source=refund.id, type="refund_failure")

    assert [line.net for line in await until(returned)] == [2500]
    failed = await donor.stripe.v1.refunds.retrieve_async(
        refund.id, {"expand": ["failure_balance_transaction"]}
    )
    assert isinstance(failed.failure_balance_transaction, stripe.BalanceTransaction)


async def test_payout_pays_out_what_is_available(donor: Donor, receiver: Receiver) -> None:
    await donor.donate(2500)
    await donor.donate(700, currency="jpy")
    (payout,) = await pay_out(donor, currency="usd")
    assert (payout["amount"], payout["status"], payout["currency"]) == (2397, "in_transit", "usd")
    assert await pay_out(donor, currency="usd") == []
    assert [line.type for line in await lines(donor, payout=payout["id"])] == ["charge", "payout"]
    await until(lambda: receiver.of("payout.reconciliation_completed"))
    assert (await donor.stripe.v1.payouts.retrieve_async(payout["id"])).status == "paid"
    assert [each["currency"] for each in await pay_out(donor)] == ["jpy"]
    assert len((await donor.stripe.v1.payouts.list_async({"limit": 1})).data) == 1


async def test_failed_payout_is_paid_out_by_the_next_one(donor: Donor, receiver: Receiver) -> None:
    await donor.donate(2500)
    (failing,) = await pay_out(donor, outcome="failed")
    await until(lambda: receiver.of("payout.failed"))
    (again,) = await pay_out(donor)
    assert again["amount"] == failing["amount"] == 2397
    assert [line.type for line in await lines(donor, payout=again["id"])] == ["payout_failure", "payout"]


@pytest.mark.parametrize("body", [{"currency": "dollars"}, {"outcome": "lost"}, ["usd"], {"currency": 1}])
async def test_invalid_payout_requests_are_refused(donor: Donor, body: Any) -> None:
    assert (await donor.post("/_sandbox/payouts", body))[0] == 422


async def test_unknown_transaction_is_refused(donor: Donor) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await donor.stripe.v1.balance_transactions.retrieve_async("txn_unknown")


def test_data_file_of_an_earlier_version_gets_its_transactions_once(tmp_path: Path) -> None:
    path = tmp_path / "sandbox.db"
    journal = Journal(path)
    journal.write(
        "INSERT INTO payments (id, created, status, amount, currency, fee, session, pledge, metadata, card,"
        " donor) VALUES ('pi_1', 1, 'succeeded', 2500, 'USD', 103, 'cs_1', 'plg_1', '{}', '', '{}')", ()
    )  # fmt: skip
    journal.write(
        "INSERT INTO refunds (id, created, payment, amount, currency, status, metadata)"
        " VALUES ('re_2', 2, 'pi_1', 500, 'USD', 'failed', '{}')", ()
    )  # fmt: skip
    journal.close()
    with sqlite3.connect(path) as before:
        before.execute("DROP TABLE balance_transactions")
    before.close()
    for _ in range(2):
        journal = Journal(path)
        rows = journal.rows("SELECT id, amount, fee FROM balance_transactions ORDER BY n")
        fees = books(journal)["USD"]["fees"]
        journal.close()
        assert rows == [("txn_1", 2500, 103), ("txn_2", -500, 0), ("txn_2f", 500, 0)]
        assert fees == "1.03"


async def test_fraud_warning_names_its_paid_intent(donor: Donor, receiver: Receiver) -> None:
    payment = await donor.donate()
    assert (await donor.post("/_sandbox/early_fraud_warnings", {"payment_intent": payment}))[0] == 200
    (warning,) = await until(lambda: receiver.of("radar.early_fraud_warning.created"))
    assert (warning["payment_intent"], warning["actionable"]) == (payment, True)
    for body, status in (({"payment_intent": "pi_unknown"}, 404), ({}, 422), ([], 422)):
        assert (await donor.post("/_sandbox/early_fraud_warnings", body))[0] == status
