"""Disbursements: by two keys, and never more than a beneficiary is owed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from backbone import ids
from backbone.clock import rfc3339
from backbone.contracts.pledges import Beneficiary
from backbone.money import Money
from services.payments.disbursements.balances import net_of
from services.payments.disbursements.shares import share_out
from services.payments.processor import Movement
from services.payments.recording import ledger
from services.payments.recording.ledger import NewPosting
from services.payments.settlement.record import place_waiting, record_movements
from services.payments.tables import DRIVES, PAYMENTS, POSTINGS, REFUNDS
from tests.payments.approval_api import ApprovalApi, open_api
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import dispute, intent_succeeded, metadata, refund

SHARES = {"Relief": 7_000, "Homes": 3_000}
BENEFICIARIES = [Beneficiary(name=name, share_bps=bps) for name, bps in SHARES.items()]


@pytest.fixture(params=["sqlite", "postgresql"])
async def api(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApprovalApi]:
    async with open_api(request.param, tmp_path, beneficiaries=BENEFICIARIES) as api:
        yield api


def money(units: int) -> dict[str, str]:
    return {"currency": "USD", "value": f"{units // 100}.{units % 100:02d}"}


async def raise_offline(api: ApprovalApi, units: int, slug: str = "winter") -> str:
    """An approved offline gift of `units`; its id."""
    body = {
        "amount": money(units),
        "method": "cash",
        "evidence": "x",
        "received_at": rfc3339(api.books.clock.now()),
    }
    gift = (await api.ask("POST", f"/v1/drives/{slug}/offline-gifts", body)).json()["id"]
    assert (await api.ask("POST", f"/v1/offline-gifts/{gift}/approve", key="key_b")).status == 200
    return str(gift)


async def reverse(api: ApprovalApi, gift: str) -> None:
    for key in ("key_a", "key_b"):
        assert (await api.ask("POST", f"/v1/offline-gifts/{gift}/reverse", key=key)).status == 200


def a_payment(api: ApprovalApi, units: int, name: str = "Relief", **other: Any) -> dict[str, Any]:
    paid_at = rfc3339(api.books.clock.now() - timedelta(days=1))
    given = {"beneficiary": name, "amount": money(units), "paid_at": paid_at, "reference": "4"}
    return {**given, "evidence": "line 3", **other}


async def record(api: ApprovalApi, units: int, name: str = "Relief", slug: str = "winter") -> tuple[int, str]:
    """The status of the reply, and the id or the problem's type."""
    reply = await api.ask("POST", f"/v1/drives/{slug}/disbursements", a_payment(api, units, name))
    return reply.status, reply.json()["id" if reply.status == 201 else "type"]


async def approve(api: ApprovalApi, disbursement: str, key: str = "key_b") -> tuple[int, str]:
    reply = await api.ask("POST", f"/v1/disbursements/{disbursement}/approve", key=key)
    return reply.status, reply.json()["status" if reply.status == 200 else "type"]


EXCEEDS = (409, "/problems/disbursement-exceeds-balance")


async def test_a_beneficiary_is_paid_its_share_once_a_second_key_approves(api: ApprovalApi) -> None:
    await raise_offline(api, 10_000)
    status, paid = await record(api, 7_000)
    assert status == 201
    assert await record(api, 7_001) == EXCEEDS
    assert await approve(api, paid, "key_a") == (409, "/problems/second-approver-needed")
    assert (await api.ask("GET", "/v1/drives/winter/disbursements", scopes=())).json()["data"] == []
    assert await approve(api, paid) == (200, "approved")
    assert await approve(api, paid, "key_c") == (200, "approved")
    assert await record(api, 1) == EXCEEDS
    assert (await record(api, 3_000, "Homes"))[0] == 201
    balances = await api.balances()
    assert (balances["beneficiary_payable"], balances["disbursed"]) == (7_000, -7_000)
    assert (await api.books.drift()).get("USD", 0) == 0
    assert len(await api.announced()) == 1


async def take_back(api: ApprovalApi, disbursement: str, key: str) -> tuple[int, str]:
    reply = await api.ask("POST", f"/v1/disbursements/{disbursement}/reverse", {"reason": "bounced"}, key=key)
    return reply.status, reply.json()["status" if reply.status == 200 else "type"]


async def test_a_disbursement_that_two_keys_reverse_is_owed_again_and_shown_as_reversed(
    api: ApprovalApi,
) -> None:
    await raise_offline(api, 10_000)
    _, paid = await record(api, 7_000)
    assert await take_back(api, paid, "key_b") == (409, "/problems/approval-state")
    await approve(api, paid)
    assert await take_back(api, paid, "key_a") == (200, "reversal_requested")
    assert await record(api, 1) == EXCEEDS
    assert await take_back(api, paid, "key_a") == (409, "/problems/second-approver-needed")
    (public,) = (await api.ask("GET", "/v1/drives/winter/disbursements", scopes=())).json()["data"]
    assert public["reversed_at"] is None
    api.books.clock.move(60)
    assert await take_back(api, paid, "key_b") == (200, "reversed")
    assert await take_back(api, paid, "key_c") == (200, "reversed")
    (public,) = (await api.ask("GET", "/v1/drives/winter/disbursements", scopes=())).json()["data"]
    assert (public["id"], public["reversed_at"]) == (paid, rfc3339(api.books.clock.now()))
    assert "disbursed" not in await api.balances()
    async with api.books.database.reading() as session:
        rows = await session.execute(select(POSTINGS).where(POSTINGS.c.cause.like("dsb_%")))
        moved = [(row.debit, row.credit, row.units, row.cause.partition("#")[2]) for row in rows]
    assert moved == [
        ("beneficiary_payable", "disbursed", 7_000, "1"),
        ("disbursed", "beneficiary_payable", 7_000, "2"),
    ]
    assert (await record(api, 7_001)) == EXCEEDS
    assert (await record(api, 7_000))[0] == 201


async def test_confirmations_of_a_reversal_at_the_same_time_post_it_once(api: ApprovalApi) -> None:
    await raise_offline(api, 10_000)
    _, paid = await record(api, 7_000)
    await approve(api, paid)
    await take_back(api, paid, "key_a")
    replies = await asyncio.gather(*(take_back(api, paid, f"key_{n}") for n in range(8)))
    assert replies == [(200, "reversed")] * 8
    assert "disbursed" not in await api.balances()


async def reverse_as_seen(api: ApprovalApi, disbursement: str, key: str, seen: str) -> tuple[int, str]:
    reply = await api.ask("POST", f"/v1/disbursements/{disbursement}/reverse", {"seen": seen}, key=key)
    return reply.status, reply.json()["status" if reply.status == 200 else "type"]


async def test_requests_for_a_reversal_at_the_same_time_confirm_none(api: ApprovalApi) -> None:
    """Each key saw it approved. One of them requests, and the others are told; repeats change nothing."""
    await raise_offline(api, 10_000)
    _, paid = await record(api, 7_000)
    await approve(api, paid)
    keys = [f"key_{n}" for n in range(4)]
    replies = await asyncio.gather(*(reverse_as_seen(api, paid, key, "approved") for key in keys * 2))
    requested, refused = (200, "reversal_requested"), (409, "/problems/approval-state")
    assert sorted(replies) == [requested] * 2 + [refused] * 6
    first = keys[replies.index(requested) % 4]
    second = next(key for key in keys if key != first)
    assert await reverse_as_seen(api, paid, first, "reversal_requested") == (
        409,
        "/problems/second-approver-needed",
    )
    assert (await api.balances())["disbursed"] == -7_000
    assert await reverse_as_seen(api, paid, second, "reversal_requested") == (200, "reversed")
    for seen in ("approved", "reversal_requested"):
        assert await reverse_as_seen(api, paid, second, seen) == (200, "reversed")
    assert "disbursed" not in await api.balances()


@pytest.mark.parametrize("seen", ["pending", "rejected", "reversed", "", 1])
async def test_status_in_which_nothing_can_be_reversed_is_refused(api: ApprovalApi, seen: object) -> None:
    await raise_offline(api, 10_000)
    _, paid = await record(api, 7_000)
    await approve(api, paid)
    reply = await api.ask("POST", f"/v1/disbursements/{paid}/reverse", {"seen": seen}, key="key_c")
    assert (reply.status, reply.json()["errors"][0]["pointer"]) == (422, "/seen")
    assert await take_back(api, paid, "key_c") == (200, "reversal_requested")


async def test_refund_that_is_reserved_and_not_sent_yet_is_not_owed(api: ApprovalApi) -> None:
    await raise_offline(api, 10_000)
    (drive, payment) = await of_payment(api)
    at = api.books.clock.now()
    reserved = {
        "id": "rfd_1", "payment_id": payment, "intent": "pi_1", "units": 4_000, "currency": "USD",
        "parameters": "{}", "state": "unsent", "n": 1, "tries": 0, "scope": "s", "key": "k", "settled": True,
        "next_try_at": at, "made_at": at,
    }  # fmt: skip
    async with api.books.database.transaction() as session:
        await session.execute(insert(REFUNDS), [reserved])
        assert (await net_of(session, drive, "USD")).whole == 6_000
    assert await record(api, 4_201) == EXCEEDS
    assert (await record(api, 4_200))[0] == 201


async def test_fee_that_was_read_before_its_payment_was_known_is_not_owed(api: ApprovalApi) -> None:
    at = api.books.clock.now()
    movement = Movement("txn_1", "charge", "ch_1", "pi_1", 10_000, 300, "USD", None, at, at)
    async with api.books.database.transaction() as session:
        await record_movements(session, [movement], at)
    about = metadata(None, ids.new("plg"), api.drive.drive_id)
    await api.books.apply([intent_succeeded("pi_1", 10_000, about)])
    assert "processor_fees" not in await api.balances()
    assert await record(api, 6_791) == EXCEEDS
    status, paid = await record(api, 6_790)
    assert (status, await approve(api, paid)) == (201, (200, "approved"))
    api.books.clock.move(60)
    async with api.books.database.transaction() as session:
        await place_waiting(session, api.books.clock.now())
    assert (await api.balances())["processor_fees"] == 300
    assert await record(api, 1) == EXCEEDS


class Interrupted:
    """A transaction that lets `change` commit after the first of its statements."""

    def __init__(self, session: Any, change: Callable[[], Awaitable[None]]) -> None:
        self._session = session
        self._change: Callable[[], Awaitable[None]] | None = change

    async def execute(self, *statement: Any) -> Any:
        found = await self._session.execute(*statement)
        await self._interrupt()
        return found

    async def run_sync(self, *called: Any) -> Any:
        found = await self._session.run_sync(*called)
        await self._interrupt()
        return found

    async def _interrupt(self) -> None:
        change, self._change = self._change, None
        if change is not None:
            await change()


async def test_fee_that_is_posted_while_the_balance_is_read_is_never_missed(tmp_path: Path) -> None:
    """On PostgreSQL each statement sees what was committed before it, also by others."""
    async with open_api("postgresql", tmp_path, beneficiaries=BENEFICIARIES) as api:
        at = api.books.clock.now()
        movement = Movement("txn_1", "charge", "ch_1", "pi_1", 10_000, 300, "USD", None, at, at)
        async with api.books.database.transaction() as session:
            await record_movements(session, [movement], at)
        about = metadata(None, ids.new("plg"), api.drive.drive_id)
        await api.books.apply([intent_succeeded("pi_1", 10_000, about)])
        api.books.clock.move(60)

        async def post_fee() -> None:
            async with api.books.database.transaction() as session:
                await place_waiting(session, api.books.clock.now())

        async with api.books.database.transaction() as session:
            interrupted = cast(Any, Interrupted(session, post_fee))
            assert (await net_of(interrupted, api.drive.drive_id, "USD")).whole <= 9_700
        async with api.books.database.transaction() as session:
            assert (await net_of(session, api.drive.drive_id, "USD")).whole == 9_700


async def of_payment(api: ApprovalApi) -> tuple[str, str]:
    """Drive and id of the only payment."""
    async with api.books.database.reading() as session:
        (row,) = (await session.execute(select(PAYMENTS.c.drive_id, PAYMENTS.c.id))).all()
    return row.drive_id, row.id


async def test_everybody_sees_what_was_paid_out_without_evidence_or_keys(api: ApprovalApi) -> None:
    await raise_offline(api, 10_000)
    _, paid = await record(api, 500)
    await record(api, 600)
    await approve(api, paid)
    reply = await api.ask("GET", "/v1/drives/winter/disbursements", partner="anybody", scopes=())
    (shown,) = reply.json()["data"]
    assert set(shown) == {
        "id",
        "drive",
        "beneficiary",
        "amount",
        "paid_at",
        "reference",
        "reversed_at",
        "fund",
    }
    assert (shown["id"], shown["amount"], shown["reversed_at"]) == (paid, money(500), None)
    own = (await api.ask("GET", "/v1/disbursements", query="drive=winter")).json()["data"]
    assert [each["status"] for each in own] == ["pending", "approved"]
    assert {each["evidence"] for each in own} == {"line 3"}
    stranger = await api.ask("GET", "/v1/disbursements", query="drive=winter", partner="neighbour")
    assert (stranger.status, stranger.json()["type"]) == (403, "/problems/not-your-drive")


async def test_what_is_owed_is_checked_again_when_it_is_approved(api: ApprovalApi) -> None:
    gift = await raise_offline(api, 10_000)
    _, paid = await record(api, 7_000)
    await reverse(api, gift)
    assert await approve(api, paid) == EXCEEDS
    assert await api.balances() == {}
    listed = (await api.ask("GET", "/v1/disbursements")).json()["data"]
    assert [(each["status"], len(each["history"])) for each in listed] == [("pending", 1)]


async def test_approvals_at_the_same_time_never_pay_out_more_than_is_owed(api: ApprovalApi) -> None:
    await raise_offline(api, 10_000)
    pending = [(await record(api, 1_000))[1] for _ in range(20)]
    replies = await asyncio.gather(*(approve(api, each) for each in pending))
    assert sorted(replies) == [(200, "approved")] * 7 + [EXCEEDS] * 13
    assert (await api.balances())["disbursed"] == -7_000


async def test_held_money_refunds_and_fees_are_not_owed(api: ApprovalApi) -> None:
    about = metadata(None, ids.new("plg"), api.drive.drive_id)
    await api.books.apply([intent_succeeded("pi_1", 12_000, about)])
    await api.books.apply([refund("created", "re_1", "pi_1", 1_500, "succeeded")])
    await api.books.apply([dispute("created", "dp_1", "pi_1", 500, "needs_response")])
    (row,) = await api.books.payments(about["ataa_pledge"])
    assert (row.captured, row.refunded, row.disputed) == (12_000, 1_500, 500)
    async with api.books.database.transaction() as session:
        fee = NewPosting(ledger.FEES, ledger.CLEARING, 1_000, "USD", "txn_1#1")
        await ledger.post(session, [(fee, None, api.drive.drive_id)], api.books.clock.now())
    euros = a_pledge(api.drive, amount=Money(500, "EUR"))
    await api.books.consume(euros)
    mismatched = metadata(None, euros.pledge_id, api.drive.drive_id)
    await api.books.apply([intent_succeeded("pi_2", 500, mismatched)])
    (held,) = await api.books.payments(euros.pledge_id)
    assert (held.held, held.captured) == (True, 500)
    assert await record(api, 6_301) == EXCEEDS
    assert (await record(api, 6_300))[0] == 201


async def test_a_drive_without_this_beneficiary_is_refused(api: ApprovalApi) -> None:
    await api.books.consume(a_drive(partner="charity", slug="plain", beneficiaries=[]))
    await raise_offline(api, 10_000, "plain")
    for slug, name in (("winter", "Nobody"), ("plain", "Relief")):
        assert await record(api, 100, name, slug) == (422, "/problems/invalid-request")


async def test_beneficiaries_that_no_event_reported_are_asked_of_pledges(api: ApprovalApi) -> None:
    await raise_offline(api, 10_000)
    async with api.books.database.transaction() as session:
        await session.execute(update(DRIVES).values(beneficiaries=None))
    assert (await record(api, 100))[0] == 503
    told = [{"name": "Relief", "share_bps": 10_000}]
    api.pledges.drives[api.drive.drive_id] = {"id": api.drive.drive_id, "beneficiaries": told}
    status, paid = await record(api, 10_000)
    assert (status, await approve(api, paid)) == (201, (200, "approved"))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"amount": {"currency": "EUR", "value": "1.00"}}, "currency-not-accepted"),
        ({"amount": {"currency": "USD", "value": "99999999999999.00"}}, "amount-too-large"),
        ({"paid_at": "2999-01-01T00:00:00Z"}, "invalid-request"),
        ({"reference": ""}, "invalid-request"),
        ({"beneficiary": "nul \x00"}, "invalid-request"),
        ({"evidence": None}, "invalid-request"),
    ],
)
async def test_what_cannot_be_recorded_is_refused(
    api: ApprovalApi, wrong: dict[str, Any], problem: str
) -> None:
    await raise_offline(api, 10_000)
    reply = await api.ask("POST", "/v1/drives/winter/disbursements", a_payment(api, 100) | wrong)
    assert (reply.status, reply.json()["type"]) == (422, f"/problems/{problem}")
    assert (await api.ask("GET", "/v1/disbursements")).json()["data"] == []


Step = tuple[str, int, int]
"""What is done, an amount, and which of the earlier ones it is done to."""
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["give", "take back", "record", "record", "approve", "approve", "reject", "request", "reverse"]
        ),
        st.sampled_from([1, 33, 100, 701, 5_000]),
        st.integers(0, 5),
    ),
    max_size=20,
)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps)
async def test_any_history_pays_out_what_a_plain_model_allows(api: ApprovalApi, history: list[Step]) -> None:
    """A drive of its own for each history."""
    slug = ids.new("drv").replace("_", "-")
    await api.books.consume(a_drive(partner="charity", slug=slug, beneficiaries=BENEFICIARIES))
    gifts: list[tuple[str, int]] = []
    pending: list[tuple[str, str, int]] = []
    approved: list[tuple[str, str, int]] = []
    paid = dict.fromkeys(SHARES, 0)

    def left(name: str) -> int:
        net = sum(units for _, units in gifts)
        return min(share_out(net, SHARES)[name] - paid[name], net - sum(paid.values()))

    for what, units, which in history:
        name = "Relief" if which % 2 else "Homes"
        if what == "give":
            gifts.append((await raise_offline(api, units, slug), units))
        elif what == "take back" and gifts:
            gift, _ = gifts.pop(which % len(gifts))
            await reverse(api, gift)
        elif what == "record":
            status, recorded = await record(api, units, name, slug)
            assert status == (201 if units <= left(name) else 409)
            if status == 201:
                pending.append((recorded, name, units))
        elif what == "reject" and pending:
            rejected, _, _ = pending.pop(which % len(pending))
            why = {"reason": "no"}
            assert (await api.ask("POST", f"/v1/disbursements/{rejected}/reject", why)).status == 200
        elif what == "approve" and pending:
            chosen, whose, asked = pending[which % len(pending)]
            status, _ = await approve(api, chosen)
            assert status == (200 if asked <= left(whose) else 409)
            if status == 200:
                pending.remove((chosen, whose, asked))
                paid[whose] += asked
                approved.append((chosen, whose, asked))
        elif what in ("request", "reverse") and approved:
            chosen, whose, asked = approved[which % len(approved)]
            assert (await take_back(api, chosen, "key_d"))[0] in (200, 409)
            if what == "reverse":
                assert await take_back(api, chosen, "key_e") == (200, "reversed")
                approved.remove((chosen, whose, asked))
                paid[whose] -= asked
    shown = (await api.ask("GET", f"/v1/drives/{slug}/disbursements", query="limit=100")).json()["data"]
    for name in SHARES:
        kept = [each for each in shown if each["beneficiary"] == name and each["reversed_at"] is None]
        assert sum(map(_units, kept)) == paid[name]


def _units(shown: dict[str, Any]) -> int:
    return int(shown["amount"]["value"].replace(".", ""))
