"""All of the sandbox's faults together: duplicates, reordering, delays, errors, lost answers and webhooks."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.journeys.embedded_system import EmbeddedSystem, running
from tests.waiting import until

ALL_FAULTS = {
    "duplicate": 3,
    "reorder": True,
    "delay_ms": 2000,
    "error_rate": 0.05,
    "error_after_rate": 0.02,
    "timeout_after_success_rate": 0.02,
    "drop_rate": 0.01,
}


async def test_books_agree_after_all_stripe_faults_together(tmp_path: Path) -> None:
    async with running(tmp_path / "ataa") as system:
        await system.open_drive("faults")
        await system.faults(**ALL_FAULTS)
        chance = random.Random(268)  # noqa: S311
        values = [f"{chance.choice([5, 10, 25, 50, 100])}.00" for _ in range(120)]
        donations = await asyncio.gather(
            *(donate_and_sometimes_refund(system, value, n) for n, value in enumerate(values))
        )
        await system.faults()

        async def shown() -> bool:
            """The totals follow the books, which follow disputes that the sandbox opens later."""
            books = await system.wait_until_books_agree()
            return bool((await system.totals("faults"))["raised"]["value"] == books["USD"])

        await until(shown)
        totals = await system.totals("faults")
        assert totals["donations"] >= len(donations) // 2
        assert "Traceback" not in system.log


async def donate_and_sometimes_refund(system: EmbeddedSystem, value: str, n: int) -> None:
    """Donate; every fifth donation is refunded, every tenth is disputed."""
    pledge = await system.pledge("faults", value, creator="star")
    await system.pay(pledge, "4000000000000259" if n % 10 == 3 else "4242424242424242")
    if n % 5 == 0:
        for _ in range(200):
            refund = await system.admin("POST", f"/v1/pledges/{pledge['id']}/refunds", {})
            if refund.status == 201:
                return
            assert refund.status == 409, refund.body  # not yet known to be paid
            await asyncio.sleep(0.1)
        raise AssertionError("the pledge was never paid")
