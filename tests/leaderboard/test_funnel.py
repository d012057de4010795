"""The gifts of a drive in a period by source, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backbone.clock import rfc3339
from backbone.contracts.pledges import Source
from services.leaderboard import funnel
from tests.leaderboard.builders import DRIVE, drive, payment, running
from tests.waiting import until

HOUR = datetime(2026, 1, 7, 12, 0, tzinfo=UTC)
TIKTOK = Source(platform="tiktok", campaign="a/b")


def gift(number: int, amount: int, minutes: float, **other: Any) -> Any:
    captured_at = HOUR + timedelta(minutes=minutes)
    return payment(f"pay_{number}", amount, pledge_id=f"plg_{number}", captured_at=captured_at, **other)


def period(hours: int = 1, drive_id: str = DRIVE) -> dict[str, str]:
    return {"drive": drive_id, "since": rfc3339(HOUR), "until": rfc3339(HOUR + timedelta(hours=hours))}


@pytest.mark.parametrize("page", [1, 2, 2000])
async def test_gifts_of_the_period_are_counted_once(
    tmp_path: Path, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(funnel, "PAGE", page)
    monkeypatch.setattr(funnel, "_PAGE", funnel._PAGE.limit(page))
    async with running(tmp_path) as leaderboard:
        await leaderboard.publish(
            drive(),
            gift(1, 500, -0.01, source=TIKTOK),
            gift(2, 700, 0, source=TIKTOK),
            gift(3, 900, 30, source=TIKTOK, refunded=100),
            gift(4, 400, 30),
            gift(5, 1100, 30, source=TIKTOK, refunded=1100),
            gift(6, 200, 59.99, source=TIKTOK),
            gift(7, 800, 60, source=TIKTOK),
            gift(8, 300, 30, offline=True),
        )
        await until(leaderboard.is_drained)
        reply = await leaderboard.post("/internal/funnel", period())
        assert reply.status == 200
        answer = reply.json()
        assert answer["complete"] is True
        assert sorted(answer["data"], key=lambda row: -row["raised"]) == [
            {"platform": "tiktok", "campaign": "a/b", "paid": 3, "raised": 1700},
            {"platform": None, "campaign": None, "paid": 1, "raised": 400},
        ]
        assert (await leaderboard.post("/internal/funnel", period(drive_id="drv_x"))).json()["data"] == []
        assert (await leaderboard.post("/internal/funnel", period() | {"since": "x"})).status == 422


async def test_period_with_too_many_gifts_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(funnel, "MAX_PAGES", 0)
    async with running(tmp_path) as leaderboard:
        assert (await leaderboard.post("/internal/funnel", period())).json()["complete"] is False
