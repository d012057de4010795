"""Money that does not match what was pledged: held, listed, released and returned through the public API."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tests.journeys.embedded_system import STRIPE_KEY, EmbeddedSystem, new_idempotency_key, running
from tests.waiting import until


async def pay_another_amount(system: EmbeddedSystem, pledge: dict[str, Any], units: int) -> None:
    """Pay `units` for a pledge, through a checkout that a person made in Stripe's dashboard."""
    marks = {"ataa_pledge": pledge["id"], "ataa_drive": pledge["drive"]}
    fields = {
        "mode": "payment",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": str(units),
        "line_items[0][price_data][product_data][name]": "Gift",
        "line_items[0][quantity]": "1",
        "success_url": "http://example.org/",
        **{f"metadata[{name}]": value for name, value in marks.items()},
        **{f"payment_intent_data[metadata][{name}]": value for name, value in marks.items()},
    }
    made = await system.request(
        "POST", f"{system.sandbox_url}/v1/checkout/sessions", urlencode(fields).encode(),
        Authorization=f"Bearer {STRIPE_KEY}", Content_Type="application/x-www-form-urlencoded",
    )  # fmt: skip
    assert made.status == 200, made.body
    paid = await system.request("POST", made.body["url"] + "/pay", {"card": "4242424242424242"})
    assert paid.status == 200, paid.body


async def held_payments(system: EmbeddedSystem, drive: str, count: int) -> list[dict[str, Any]]:
    """The held payments of a drive, once there are so many."""

    async def there() -> list[dict[str, Any]] | None:
        listed = await system.admin("GET", f"/v1/payments?drive={drive}&held=true")
        assert listed.status == 200, listed.body
        return listed.body["data"] if len(listed.body["data"]) == count else None

    return await until(there)


async def test_kill_after_a_release_neither_repeats_nor_loses_it(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("held")
        await system.open_drive("other")
        pledges = [await system.pledge("held", message="A warm night") for _ in range(2)]
        for pledge in pledges:
            await pay_another_amount(system, pledge, 2_600)
        returned, counted = await held_payments(system, "held", 2)
        await system.wait_for_raised("held", "0.00", held="52.00")

        system.kill()
        await system.start(ATAA_CRASH_AT="payments.holding.after_commit:1")
        path, key = f"/v1/payments/{counted['id']}/release", new_idempotency_key()
        body = {"note": "meant for the other drive", "drive": "other", "creator": "star"}
        with contextlib.suppress(aiohttp.ClientError):
            await system.admin("POST", path, body, Idempotency_Key=key)
        await system.wait_until_killed()
        await system.start()
        reply = await system.admin("POST", path, body, Idempotency_Key=key)
        assert (reply.status, reply.headers["Idempotency-Replayed"]) == (200, "true")
        assert (await system.admin("POST", path, body)).status == 409

        refund = await system.admin("POST", f"/v1/payments/{returned['id']}/refunds", {"reason": "a mistake"})
        assert (refund.status, refund.body["amount"]["value"]) == (201, "26.00")
        await system.wait_for_raised("other", "26.00")
        assert await system.wait_until_books_agree() == {"USD": "26.00"}
        await system.wait_for_raised("held", "0.00", held="0.00")
        await assert_donor_is_not_shown(system, counted["pledge"])
        shown = (await system.admin("GET", f"/v1/payments/{returned['id']}")).body
        assert [(each["kind"], each["refund"], each["note"]) for each in shown["decisions"]] == [
            ("refund", refund.body["id"], "a mistake")
        ]
        statuses = [(await system.admin("GET", f"/v1/pledges/{one['id']}")).body["status"] for one in pledges]
        assert sorted(statuses) == ["paid", "refunded"]


async def assert_donor_is_not_shown(system: EmbeddedSystem, pledge: str) -> None:
    """Fail if anything public of the drive `other` has the donor's message or the pledge."""
    for path in ("donations", "events?after=0", "totals", "leaderboards/donors"):
        answer = await system.request("GET", f"/v1/drives/other/{path}")
        assert answer.status == 200, answer.body
        assert "A warm night" not in str(answer.body)
        assert pledge not in str(answer.body)
