"""The pledges of a drive in a period by source."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backbone import ids
from backbone.clock import rfc3339
from services.pledges import funnel
from tests.pledges.harness import Harness, a_pledge


def test_lowest_id_of_a_moment_is_below_those_made_then_and_above_those_made_before() -> None:
    before = ids.new("plg")
    moment = ids.created_at(before)
    assert ids.lowest("plg", moment) <= before < ids.lowest("plg", moment + timedelta(milliseconds=1))
    assert ids.is_id(ids.lowest("plg", moment), "plg")


@pytest.mark.parametrize("page", [1, 2000])
async def test_pledges_of_the_period_are_counted_by_source(
    harness: Harness, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(funnel, "PAGE", page)
    monkeypatch.setattr(funnel, "_PAGE", funnel._PAGE.limit(page))
    drives = {slug: await harness.drive(slug) for slug in ("winter", "spring")}
    for number, (slug, source) in enumerate(
        [
            ("winter", {"platform": "TikTok"}),
            ("spring", {"platform": "TikTok"}),
            ("winter", {"platform": "TikTok"}),
            ("winter", {"campaign": "شتاء", "referrer": "https://example.org/x"}),
            ("winter", None),
        ]
    ):
        pledge = a_pledge(**({"source": source} if source else {}))
        assert (await harness.post(f"/v1/drives/{slug}/pledges", pledge, key=str(number))).status == 201
    now = datetime.now(UTC)
    around = {"since": rfc3339(now - timedelta(hours=1)), "until": rfc3339(now + timedelta(hours=1))}
    scopes = ("internal",)
    reply = await harness.post("/internal/funnel", {"drive": drives["winter"], **around}, scopes=scopes)
    assert reply.json()["complete"] is True
    assert sorted(reply.json()["data"], key=lambda row: -row["pledged"]) == [
        {"platform": "TikTok", "campaign": None, "pledged": 2},
        {"platform": None, "campaign": "شتاء", "pledged": 1},
        {"platform": None, "campaign": None, "pledged": 1},
    ]
    past = {"since": rfc3339(now - timedelta(hours=2)), "until": rfc3339(now - timedelta(hours=1))}
    reply = await harness.post("/internal/funnel", {"drive": drives["winter"], **past}, scopes=scopes)
    assert reply.json() == {"complete": True, "data": []}
    assert (await harness.post("/internal/funnel", {"drive": "x", **past}, scopes=("drives",))).status == 403
