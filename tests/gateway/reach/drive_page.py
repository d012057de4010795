"""A drive with everything that a public page shows, in front of the gateway's fake services."""

from __future__ import annotations

import json
from typing import Any

from backbone.contracts import SnapshotTaken
from tests.gateway.harness import DRIVE, Harness, ReceivedRequest, drive

HOSTILE = """</script><img src=x onerror=alert(1)>"'&"""
ABOFLAH = {"id": "crt_205", "slug": "aboflah", "name": "AboFlah"}


def leader(rank: int, creator: str, slug: str, name: str, value: str) -> dict[str, Any]:
    return {"rank": rank, "creator": creator, "slug": slug, "name": name, "raised": usd(value)}


def milestone(title: Any, value: str, reached_at: str | None = None) -> dict[str, Any]:
    return {"title": title, "amount": usd(value), "reached_at": reached_at}


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


def totals(**changes: Any) -> dict[str, Any]:
    """A drive's totals as a snapshot has them."""
    return {
        "drive": DRIVE,
        "slug": "winter",
        "title": {"en": "Let's make their winter warmer", "ar": "لنجعل شتاءهم أدفأ"},
        "currency": "USD",
        "raised": usd("4560123.45"),
        "goal": usd("10000000.00"),
        "percent": 45.6,
        "donations": 97012,
        "donors": 96400,
        "by_state": {},
        "per_minute": {"donations": 41, "raised": usd("1830.00")},
        "leaders": [
            leader(1, "crt_205", "aboflah", "AboFlah", "2500000.00"),
            leader(2, "crt_206", "noor", "نور", "310000.50"),
        ],
        "recent": [
            {"id": "don_2", "name": "أمل", "message": "لكل طفل ليلة دافئة", "amount": usd("25.00")},
            {"id": "don_1", "name": None, "message": None, "amount": usd("1000.00")},
        ],
        "milestones": [
            milestone({"en": "First", "ar": "الأولى"}, "1000000.00", "2026-01-07T12:00:00Z"),
            milestone("Half way", "5000000.00"),
        ],
        **changes,
    }  # fmt: skip


async def show(harness: Harness, sequence: int = 1, **changes: Any) -> None:
    """Let the gateway receive these totals of the drive."""
    snapshot = SnapshotTaken(
        drive_id=DRIVE, slug="winter", epoch=1, sequence=sequence, revision=0,
        as_of=harness.clock.now(), totals=totals(**changes),
    )  # fmt: skip
    await harness.publish(snapshot, lossy=True)


def know(harness: Harness, *creators: dict[str, str], **changes: Any) -> None:
    """Let pledges know the drive with these changes, and these creators."""

    def answer_drives(received: ReceivedRequest) -> tuple[int, Any]:
        found = {**drive(), "title": totals()["title"], **changes}
        refs = json.loads(received.body)["refs"]
        return 200, {"data": {ref: found for ref in refs if ref in (DRIVE, "winter")}}

    def answer_creators(received: ReceivedRequest) -> tuple[int, Any]:
        by_ref = {f"{DRIVE}/{one[by]}": one for one in creators for by in ("id", "slug")}
        refs = json.loads(received.body)["refs"]
        return 200, {"data": {ref: by_ref[ref] for ref in refs if ref in by_ref}}

    harness.pledges.answers["POST /internal/drives"] = answer_drives
    harness.pledges.answers["POST /internal/creators"] = answer_creators
    boards = f"GET /v1/drives/{DRIVE}/leaderboards"
    place = {"rank": 1, **ABOFLAH, "creator": "crt_205", "raised": usd("2500000.00"), "donations": 9}
    harness.leaderboard.answers[f"{boards}/creators"] = (200, {"data": [place]})
    teams = [{"rank": 1, "team": "فريق الكويت", "raised": usd("2810000.50"), "donations": 3}]
    harness.leaderboard.answers[f"{boards}/teams"] = (200, {"data": teams})
