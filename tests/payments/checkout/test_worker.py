"""Opening checkouts: in order, within the rate limit, and never two live ones for a pledge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Row, select

from backbone.contracts import PledgeMade
from backbone.database.database import Database
from backbone.money import decimal_string
from services.payments.tables import ATTEMPTS, MESSAGING_TABLES, PAYMENTS
from tests.payments.harness import STRIPE_KEY, Harness, a_drive, a_pledge, running
from tests.waiting import until


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running(tmp_path) as harness:
        yield harness


async def sessions(harness: Harness) -> list[dict[str, Any]]:
    """Every session of the sandbox, newest first."""
    headers = {"Authorization": f"Bearer {STRIPE_KEY}"}
    url = f"{harness.sandbox}/v1/checkout/sessions?limit=100"
    async with harness.http.get(url, headers=headers) as answer:
        found: list[dict[str, Any]] = (await answer.json())["data"]
    return found


async def test_a_session_carries_our_metadata_and_no_currency_is_converted(harness: Harness) -> None:
    drive = a_drive("ISK")
    pledge = a_pledge(drive, 500, locale="is-IS")
    harness.pledges.details[pledge.pledge_id] = {
        "email": "donor@example.org", "return_url": "https://partner.example/thanks", "title": "Vetur",
    }  # fmt: skip
    await harness.publish_events(drive, pledge)
    await harness.opened(pledge.pledge_id)
    (session,) = await sessions(harness)
    assert session["amount_total"] == 50_000  # Stripe counts krónur in hundredths
    assert session["client_reference_id"] == pledge.pledge_id
    assert session["metadata"]["ataa_pledge"] == pledge.pledge_id
    assert session["metadata"]["ataa_drive"] == drive.drive_id
    assert session["metadata"]["ataa_payment"].startswith("pay_")
    assert (session["submit_type"], session["locale"]) == ("donate", "auto")
    assert session["adaptive_pricing"] == {"enabled": False}
    assert session["customer_email"] == "donor@example.org"
    assert session["success_url"] == "https://partner.example/thanks"
    assert session["cancel_url"].endswith("/donate/winter")
    await harness.pay(session["url"])
    await harness.status(pledge.pledge_id, "paid")
    await harness.drained()
    assert await harness.books() == {"ISK": "500"}


@pytest.mark.parametrize(("currency", "units"), [("IDR", 999_999_999_999), ("LBP", 99_999_999_999)])
async def test_an_amount_of_more_than_eight_digits_is_paid_where_stripe_supports_it(
    harness: Harness, currency: str, units: int
) -> None:
    pledge = await harness.donate(a_drive(currency), units)
    await harness.status(pledge, "paid")
    await harness.drained()
    assert (
        await harness.books() == await harness.sandbox_books() == {currency: decimal_string(units, currency)}
    )


async def test_an_embedded_checkout_has_a_client_secret_and_no_url(harness: Harness) -> None:
    drive = a_drive()
    pledge = a_pledge(drive, checkout_mode="embedded")
    await harness.publish_events(drive, pledge)
    await harness.drained()
    checkout = (await harness.checkout(pledge.pledge_id))["checkout"]
    assert checkout["url"] is None
    assert checkout["client_secret"].startswith("cs_test_")
    (session,) = await sessions(harness)
    assert session["return_url"].endswith(f"/donate/winter/thanks?pledge={pledge.pledge_id}")


@pytest.mark.parametrize(
    "fault", [{"error_rate": 0.3}, {"error_after_rate": 1}, {"timeout_after_success_rate": 0.5}]
)
async def test_each_pledge_gets_exactly_one_session_whatever_fails_at_stripe(
    harness: Harness, fault: dict[str, float]
) -> None:
    drive = a_drive()
    pledges = [a_pledge(drive) for _ in range(12)]
    await harness.faults(**fault)
    await harness.publish_events(drive, *pledges)
    await asyncio.gather(*(harness.opened(pledge.pledge_id) for pledge in pledges))
    await harness.drained()
    found = await sessions(harness)
    assert sorted(each["client_reference_id"] for each in found) == sorted(
        pledge.pledge_id for pledge in pledges
    )


async def test_a_429_slows_the_queue_and_loses_no_ticket(harness: Harness) -> None:
    drive = a_drive()
    pledges = [a_pledge(drive) for _ in range(30)]
    await harness.faults(rate_limit_per_s=25)
    await harness.publish_events(drive, *pledges)
    await asyncio.gather(*(harness.opened(pledge.pledge_id) for pledge in pledges))
    assert len(await sessions(harness)) == 30


async def test_queue_positions_decrease_in_order(tmp_path: Path) -> None:
    async with running(tmp_path, stripe_rate_per_s=4.0) as harness:
        drive = a_drive()
        pledges = [a_pledge(drive) for _ in range(9)]
        await harness.publish_events(drive, *pledges)
        last = await until(lambda: _when_the_first_is_open(harness, pledges))
        assert last["checkout"] is None
        assert 1 <= last["queue"]["position"] <= 9
        assert last["queue"]["eta_seconds"] >= 1
        await harness.opened(pledges[-1].pledge_id)
        created = {each["client_reference_id"]: place for place, each in enumerate(await sessions(harness))}
        order = [created[pledge.pledge_id] for pledge in pledges]
        assert order == sorted(order, reverse=True)


async def _when_the_first_is_open(harness: Harness, pledges: list[PledgeMade]) -> dict[str, Any] | None:
    """The last pledge's checkout at a time when the first one's is open."""
    ends = [pledges[0].pledge_id, pledges[-1].pledge_id]
    found = (await harness.ask("POST", "/internal/checkouts", {"ids": ends})).json()["data"]
    first, last = (found.get(each, {}) for each in ends)
    return dict(last) if first.get("checkout") else None


async def test_an_optional_parameter_that_stripe_refuses_is_omitted(harness: Harness) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    harness.pledges.details[pledge.pledge_id] = {"email": "not an address"}
    await harness.publish_events(drive, pledge)
    await harness.opened(pledge.pledge_id)
    (session,) = await sessions(harness)
    assert session["customer_email"] is None


@pytest.mark.parametrize("minutes", [10.0, -60.0])
async def test_a_clock_wrong_by_minutes_lapses_no_pledge(tmp_path: Path, minutes: float) -> None:
    """With a clock ahead, the expiry is too late for Stripe; with one behind, too early."""
    clock = ShiftedClock(timedelta(minutes=minutes))
    settings = {"checkout_expires_s": 1_800 if minutes < 0 else 86_340}
    async with running(tmp_path, clock=clock, **settings) as harness:
        drive = a_drive()
        first, second = a_pledge(drive), a_pledge(drive)
        await harness.publish_events(drive, first)
        await harness.opened(first.pledge_id)
        await harness.publish_events(second)
        await harness.pay(await harness.opened(second.pledge_id))
        await harness.status(second.pledge_id, "paid")
        tries = await attempts(tmp_path)
    assert [(row.n, row.state, row.refused) for row in tries] == [
        (1, "failed", "expires_at"), (2, "opened", None),  # learnt from the first refusal,
        (1, "opened", None),  # and applied to later tickets
    ]  # fmt: skip


async def test_with_a_correct_clock_a_session_expires_at_its_configured_time(tmp_path: Path) -> None:
    async with running(tmp_path, checkout_expires_s=3_600) as harness:
        drive = a_drive()
        pledge = a_pledge(drive)
        await harness.publish_events(drive, pledge)
        await harness.opened(pledge.pledge_id)
        (session,) = await sessions(harness)
    assert session["expires_at"] - session["created"] == pytest.approx(3_600, abs=5)


class ShiftedClock:
    """A clock that is wrong by `by`."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return datetime.now(UTC) + self._by


async def attempts(folder: Path) -> Sequence[Row[Any]]:
    """All attempts, in the order of their payments' tickets."""
    database = Database(f"sqlite:///{folder / 'payments.db'}", MESSAGING_TABLES)
    async with database.reading() as session:
        joined = select(ATTEMPTS).join(PAYMENTS, PAYMENTS.c.id == ATTEMPTS.c.payment_id)
        rows = (await session.execute(joined.order_by(PAYMENTS.c.number, ATTEMPTS.c.n))).all()
    await database.close()
    return rows


async def test_an_amount_unsupported_by_stripe_lapses_without_a_call(
    harness: Harness, tmp_path: Path
) -> None:
    drive = a_drive("KWD")
    pledge = a_pledge(drive, 10_001)
    await harness.publish_events(drive, pledge)
    await harness.drained()
    found = await harness.checkout(pledge.pledge_id)
    assert found == {"status": "lapsed", "checkout": None, "queue": None, "version": 1}
    assert await sessions(harness) == []
    database = Database(f"sqlite:///{tmp_path / 'payments.db'}", MESSAGING_TABLES)
    async with database.reading() as session:
        reason = (await session.execute(select(ATTEMPTS.c.reason))).scalar_one()
        checkout = (await session.execute(select(PAYMENTS.c.checkout))).scalar_one()
    await database.close()
    assert checkout == "failed"
    assert "last digit" in reason


LIVE = {"stripe_api_key": SecretStr("sk_live_1"), "stripe_webhook_secrets": ["whsec_1"]}


@pytest.mark.parametrize(
    ("drive_is_test", "detail"),
    [(True, {}), (False, {"test": True})],  # by the event, or by pledges' response
)
async def test_no_live_checkout_is_opened_for_a_test_drive(
    tmp_path: Path, drive_is_test: bool, detail: dict[str, Any]
) -> None:
    async with running(tmp_path, **LIVE) as harness:  # a live key, which the sandbox refuses
        drive = a_drive(test=drive_is_test)
        pledge = a_pledge(drive)
        harness.pledges.details[pledge.pledge_id] = detail
        await harness.publish_events(drive, pledge)
        await harness.status(pledge.pledge_id, "lapsed")
        (attempt,) = await attempts(tmp_path)
    assert (attempt.state, "test drive" in attempt.reason) == ("failed", True)


async def test_a_live_checkout_is_attempted_for_a_drive_that_is_no_test(tmp_path: Path) -> None:
    async with running(tmp_path, **LIVE) as harness:
        drive = a_drive()
        await harness.publish_events(drive, a_pledge(drive))
        await until(lambda: attempts(tmp_path))
        (attempt,) = await attempts(tmp_path)
    assert attempt.state == "sent"


async def test_a_session_that_ends_unpaid_lapses(tmp_path: Path) -> None:
    async with running(tmp_path, checkout_expires_s=2) as harness:
        drive = a_drive()
        pledge = a_pledge(drive)
        await harness.publish_events(drive, pledge)
        await harness.status(pledge.pledge_id, "lapsed")
        assert len(await sessions(harness)) == 1
        assert (await harness.checkout(pledge.pledge_id))["checkout"] is None
        await harness.drained()
    assert [event.status for event in harness.published] == ["lapsed"]


async def test_a_declined_card_does_not_end_the_session(harness: Harness) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    await harness.publish_events(drive, pledge)
    url = await harness.opened(pledge.pledge_id)
    assert (await harness.pay(url, "4000000000000002"))["payment_status"] == "unpaid"
    await harness.drained()
    assert (await harness.checkout(pledge.pledge_id))["checkout"]["url"] == url
    await harness.pay(url)
    await harness.status(pledge.pledge_id, "paid")
