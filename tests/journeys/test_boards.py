"""Boards and donations through the public API, from the pledge's body to a refund."""

from __future__ import annotations

from typing import Any

import pytest

from tests.journeys.embedded_system import EmbeddedSystem
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

DONORS: dict[str, dict[str, Any]] = {
    "named": {"name": "Huda", "email": "huda@example.org"},
    "unnamed": {"name": "Huda", "email": "huda@example.org", "anonymous": True},
    "silent": {"email": "sami@example.org"},
}


async def test_donors_sources_windows_and_refunds_are_on_the_boards(system: EmbeddedSystem) -> None:
    await system.open_drive("boards")
    night = {"platform": "youtube", "campaign": "night"}
    refunded = await system.donate("boards", "40.00", donor=DONORS["named"], source=night)
    await system.donate("boards", "15.00", donor=DONORS["named"], source={"platform": "youtube"})
    await system.donate("boards", "30.00", donor=DONORS["unnamed"], source=night)
    await system.donate("boards", "20.00", donor=DONORS["silent"])

    async def board(name: str, query: str = "") -> list[dict[str, Any]]:
        reply = await system.request("GET", f"/v1/drives/boards/leaderboards/{name}{query}")
        assert reply.status == 200, reply.body
        return list(reply.body["data"])

    async def donors_are(query: str, *expected: tuple[str | None, str]) -> None:
        async def there() -> bool:
            shown = await board("donors", query)
            return [(one["name"], one["raised"]["value"]) for one in shown] == list(expected)

        await until(there)

    for query in ("", "?window=24h", "?window=1h"):
        await donors_are(query, ("Huda", "55.00"), (None, "30.00"), (None, "20.00"))
    places = await board("donors", "?window=24h&limit=1")
    around = await board("donors", f"?window=24h&limit=1&around={places[0]['donor']}")
    assert around == places
    reply = await system.admin("POST", f"/v1/pledges/{refunded['id']}/refunds", {})
    assert reply.status == 201, reply.body
    for query in ("", "?window=1h"):
        await donors_are(query, (None, "30.00"), (None, "20.00"), ("Huda", "15.00"))
    sources = await board("sources", "?window=24h&limit=9")
    assert [(one["source"], one["raised"]["value"]) for one in sources] == [
        ("youtube/night", "30.00"),
        ("youtube", "15.00"),
    ]
    donations = (await system.request("GET", "/v1/drives/boards/donations")).body
    assert [one["name"] for one in donations["data"]] == [None, None, "Huda"]
    assert donations["next"] is None
    assert await system.wait_until_books_agree() is not None
