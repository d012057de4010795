"""Looking up creators by id, slug and name on both databases, however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.pledges.queries import MAX_SEARCH_RESULTS
from tests.engines import fresh_postgres
from tests.pledges.harness import Harness, a_pledge
from tests.stores.test_two_pledges_replicas import replica


@pytest.fixture(params=["sqlite", "postgresql"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    """A pledges service on each database."""
    if request.param == "sqlite":
        async with replica(tmp_path, "") as stage:
            yield stage
        return
    async with fresh_postgres() as url, replica(tmp_path, url) as stage:
        yield stage


async def add(stage: Harness, drive: str, slug: str, name: str) -> str:
    made = await stage.post(f"/v1/drives/{drive}/creators", {"slug": slug, "name": name})
    assert made.status == 201
    return str(made.json()["id"])


async def test_a_creator_is_found_by_id_or_slug_within_its_drive(stage: Harness) -> None:
    winter, spring = await stage.drive("winter"), await stage.drive("spring")
    for number in range(204):
        await add(stage, "winter", f"c{number}", f"C {number}")
    last = await add(stage, "winter", "aboflah", "AboFlah")
    other = await add(stage, "spring", "aboflah", "Another")
    short = {"slug": "aboflah", "name": "AboFlah"}
    refs = [
        f"{winter}/aboflah",
        f"{winter}/{last}",
        f"{spring}/aboflah",
        f"{spring}/{last}",
        f"{winter}/AboFlah",
    ]
    assert await stage.post_internal(
        "/internal/creators", refs=[*refs, "winter/aboflah", "", "/", "aboflah"]
    ) == {
        f"{winter}/aboflah": {"id": last, **short},
        f"{winter}/{last}": {"id": last, **short},
        f"{spring}/aboflah": {"id": other, "slug": "aboflah", "name": "Another"},
    }
    pledge = await stage.pledge(a_pledge(creator="aboflah"))
    assert pledge.json()["creator"] == last


async def test_a_search_finds_part_of_a_name_or_slug_in_any_case_and_is_bounded(stage: Harness) -> None:
    winter = await stage.drive("winter")
    await stage.drive("spring")
    await add(stage, "spring", "flah", "Flah of spring")
    for number in range(MAX_SEARCH_RESULTS + 1):
        await add(stage, "winter", f"c{number}", f"صانع {number}")
    await add(stage, "winter", "aboflah", "أبو فلة")
    await add(stage, "winter", "x", "100%_\\ Flah/")

    async def search(text: str) -> tuple[list[str], bool]:
        found = await stage.post_internal("/internal/creator-search", drive=winter, text=text)
        return [one["slug"] for one in found["creators"]], found["more"]

    assert await search("FLAH") == (["aboflah", "x"], False)
    assert await search("فلة") == (["aboflah"], False)
    assert await search("nobody") == ([], False)
    for wild in ("%", "_", "\\", "/"):
        assert await search(wild) == (["x"], False)
    assert await search("صانع") == ([f"c{number}" for number in range(MAX_SEARCH_RESULTS)], True)


async def test_creator_lookup_requires_the_internal_scope(stage: Harness) -> None:
    await stage.drive("winter")
    body = {"drive": "winter", "text": ""}
    assert (await stage.post("/internal/creator-search", body, scopes=("drives",))).status == 403
    assert (await stage.post("/internal/creators", {"refs": []}, scopes=("drives",))).status == 403
