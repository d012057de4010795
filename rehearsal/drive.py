"""Sets up the drive through the public API, as an operator does before the first donation."""

from collections.abc import Mapping
from typing import Any

from rehearsal.amounts import as_money
from rehearsal.api_client import ApiClient
from rehearsal.donors import Credentials, Refused
from rehearsal.gifts import CREATORS

GOAL_CENTS = 1_000_000_000


def winter_drive(slug: str) -> dict[str, Any]:
    """The request body that creates the drive."""
    return {
        "slug": slug,
        "title": {"en": "Let's make their winter warmer", "ar": "لنجعل شتاءهم أدفأ"},
        "description": {
            "en": "Blankets, stoves and fuel for families in tents.",
            "ar": "أغطية ومدافئ ووقود للعائلات في الخيام.",
        },
        "currency": "USD",
        "goal": as_money(GOAL_CENTS),
        "beneficiaries": [
            {"name": "Refugee winter fund", "share_bps": 7_000},
            {"name": "Food banks", "share_bps": 3_000},
        ],
        "zakat_eligible": True,
        "impact": [{"label": {"en": "a warm blanket", "ar": "بطانية دافئة"}, "cost": as_money(1_000)}],
        "milestones": [
            {"title": {"en": "The first million", "ar": "المليون الأول"}, "amount": as_money(100_000_000)},
            {"title": {"en": "Two million", "ar": "مليونان"}, "amount": as_money(200_000_000)},
            {"title": {"en": "The goal", "ar": "الهدف"}, "amount": as_money(GOAL_CENTS)},
        ],
        "menu": [as_money(cents) for cents in (500, 1_000, 2_000, 2_500, 5_000)],
    }


async def open_drive(api: ApiClient, keys: Mapping[str, str], run: str, drive: str) -> Credentials:
    """Create a partner's key, the drive and its creators, and open the drive. Raises Refused, NoAnswer.

    `keys` is the content of keys.json: `admin`, and `publishable` for the demo's origin.
    """
    admin = {"Authorization": f"Bearer {keys['admin']}"}

    async def post(path: str, body: Mapping[str, Any] | None, what: str) -> Mapping[str, Any]:
        reply = await api.post(path, body, admin | {"Idempotency-Key": f"{run}-{what}"})
        if reply.status not in (200, 201):
            raise Refused(f"opening the drive, POST {path}: {reply.problem}")
        return reply.body

    partner = {
        "kind": "secret",
        "partner": "rehearsal",
        "name": "rehearsal",
        "scopes": ["pledges", "refunds"],
    }
    secret = str((await post("/v1/keys", partner, "key"))["key"])
    await post("/v1/drives", winter_drive(drive), "drive")
    for slug, name in CREATORS:
        await post(f"/v1/drives/{drive}/creators", {"slug": slug, "name": name}, f"creator-{slug}")
    await post(f"/v1/drives/{drive}/open", None, "open")
    return Credentials(secret, keys.get("publishable"), origin=api.base_url)
