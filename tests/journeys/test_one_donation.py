"""From opening a drive to a paid donation: totals, board, log, live stream and books agree."""

from __future__ import annotations

import asyncio

import pytest

from tests.journeys.embedded_system import EmbeddedSystem, live_frames
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_donation_updates_totals_leaderboard_log_and_stream(system: EmbeddedSystem) -> None:
    drive = await system.open_drive("first", milestones=[{"title": "A start", "amount": _usd("20.00")}])
    frames: asyncio.Queue[tuple[str, str, object]] = asyncio.Queue()
    stream = asyncio.create_task(live_frames(system, "first", frames))
    assert (await frames.get())[0] == "totals"
    donor = {"name": "سارة", "email": "sara@example.org", "locale": "ar"}
    pledge = await system.donate("first", "25.00", creator="star", donor=donor, message="دفء للجميع")
    totals = await system.wait_for_raised("first", "25.00")
    assert (totals["donations"], totals["donors"]) == (1, 1)
    assert totals["by_state"]["captured"] == _usd("25.00")
    assert totals["leaders"][0]["slug"] == "star"
    assert totals["leaders"][0]["raised"] == _usd("25.00")
    assert (await system.newest_donation("first", "سارة"))["message"] == "دفء للجميع"
    assert totals["percent"] == 0.2  # 25 of 10,000, rounded down to one decimal
    assert totals["milestones"][0]["reached_at"] is not None
    log = (await system.request("GET", "/v1/drives/first/events?after=0")).body["data"]
    assert [row["type"] for row in log] == ["drive.opened", "donation.counted", "milestone.reached"]
    assert [row["sequence"] for row in log] == [1, 2, 3]
    assert log[1]["pledge"] == pledge["id"]
    board = (await system.request("GET", f"/v1/drives/{drive['id']}/leaderboards/creators")).body
    assert board["data"][0]["raised"] == _usd("25.00")
    seen = {event: data for event, _, data in [await frames.get() for _ in range(3)]}
    await until(lambda: {"donation", "milestone"} <= seen.keys() or _drain_frames(seen, frames))
    assert seen["donation"]["name"] == "سارة"  # type: ignore[index]
    assert seen["donation"]["pledge"] == pledge["id"]  # type: ignore[index]
    stream.cancel()
    read = await system.request("GET", f"/v1/pledges/{pledge['id']}?token={pledge['token']}")
    assert read.body["status"] == "paid"
    assert await system.wait_until_books_agree() is not None


def _drain_frames(seen: dict[str, object], frames: asyncio.Queue[tuple[str, str, object]]) -> bool:
    while not frames.empty():
        event, _, data = frames.get_nowait()
        seen[event] = data
    return False


async def test_refund_dispute_and_failed_refund_are_accounted_separately(system: EmbeddedSystem) -> None:
    await system.open_drive("lives")
    kept, whole, part = [await system.donate("lives", value) for value in ("10.00", "20.00", "30.00")]
    refused = await system.pledge("lives", "40.00")
    assert (await system.pay(refused, "4000000000005126"))["payment_status"] == "paid"
    disputed = await system.pledge("lives", "50.00")
    assert (await system.pay(disputed, "4000000000000259"))["payment_status"] == "paid"
    await system.wait_for_raised("lives", "100.00")  # the sandbox disputed 50.00 by itself
    for pledge, body in ((whole, {}), (part, {"amount": _usd("5.50")}), (refused, {})):
        refund = await system.admin("POST", f"/v1/pledges/{pledge['id']}/refunds", body)
        assert refund.status == 201, refund.body
        assert refund.body["id"].startswith("rfd_")
    totals = await system.wait_for_raised("lives", "74.50")  # 10 + 24.50 + 40, whose refund failed
    assert totals["by_state"]["captured"] == _usd("150.00")
    assert totals["by_state"]["refunded"] == _usd("25.50")
    assert totals["by_state"]["disputed"] == _usd("50.00")
    assert totals["donations"] == 3
    wanted = {
        kept["id"]: "paid",
        whole["id"]: "refunded",
        part["id"]: "partly_refunded",
        disputed["id"]: "disputed",
    }
    for pledge, status in wanted.items():
        read = await system.admin("GET", f"/v1/pledges/{pledge}")
        assert read.body["status"] == status
    again = await system.admin("POST", f"/v1/pledges/{whole['id']}/refunds", {})
    assert (again.status, again.body["type"]) == (409, "/problems/refund-exceeds-payment")
    await system.wait_until_books_agree()


async def test_declined_card_leaves_the_checkout_open(system: EmbeddedSystem) -> None:
    await system.open_drive("declines")
    pledge = await system.pledge("declines")
    assert (await system.pay(pledge, "4000000000000002"))["payment_status"] == "unpaid"
    assert (await system.pay(pledge))["payment_status"] == "paid"
    totals = await system.wait_for_raised("declines", "25.00")
    assert totals["donations"] == 1


async def test_waiting_read_returns_once_the_pledge_is_paid(system: EmbeddedSystem) -> None:
    await system.open_drive("waits")
    pledge = await system.pledge("waits")
    path = f"/v1/pledges/{pledge['id']}?token={pledge['token']}"
    waiting = asyncio.create_task(system.request("GET", path, Prefer="wait=10"))
    await asyncio.sleep(0.05)
    await system.pay(pledge)
    assert (await waiting).body["status"] == "paid"


@pytest.mark.parametrize(("currency", "value"), [("JPY", "1500"), ("KWD", "12.340"), ("EUR", "0.99")])
async def test_totals_use_the_decimals_of_the_currency(
    system: EmbeddedSystem, currency: str, value: str
) -> None:
    await system.open_drive(f"in-{currency.lower()}", currency)
    pledge = await system.pledge(f"in-{currency.lower()}", value, currency)
    await system.pay(pledge)
    await system.wait_for_raised(f"in-{currency.lower()}", value)


async def test_repeat_donor_is_counted_once(system: EmbeddedSystem) -> None:
    await system.open_drive("donors")
    for email in ("a@example.org", "A@example.org ", None, None):
        await system.donate("donors", "5.00", donor={"email": email.strip()} if email else {})
    totals = await system.wait_for_raised("donors", "20.00")
    assert (totals["donations"], totals["donors"]) == (4, 3)


def _usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}
