"""Ownership of drives: who may change one, and which partners may pledge to it (docs/architecture.md)."""

from __future__ import annotations

from typing import Any

import pytest

from backbone.contracts.pledges import DriveChanged, PledgeMade
from backbone.http.caller import HOSTED_FORM
from tests.pledges.harness import Harness, a_drive, a_pledge

CREATOR = {"slug": "abo", "name": "Abo"}
DRIVES = ("drives",)
PLEDGES = ("pledges",)


async def test_drive_is_owned_by_the_partner_that_created_it(harness: Harness) -> None:
    made = await harness.post("/v1/drives", a_drive(), partner="charity", scopes=DRIVES)
    assert (made.json()["partner"], made.json()["partners"]) == ("charity", None)
    by_admin = await harness.post("/v1/drives", a_drive("summer"))
    assert by_admin.json()["partner"] == "default"
    announced = [event.partner for event in await harness.announced() if isinstance(event, DriveChanged)]
    assert announced == ["charity", "default"]


@pytest.mark.parametrize("partner", ["neighbour", "default"])
async def test_other_partner_cannot_change_a_drive(harness: Harness, partner: str) -> None:
    made = await harness.post("/v1/drives", a_drive(), partner="charity", scopes=DRIVES)
    who: dict[str, Any] = {"partner": partner, "scopes": DRIVES}
    announced = await harness.announced()
    for ref in ("winter", made.json()["id"]):
        replies = [
            await harness.patch(f"/v1/drives/{ref}", {"title": "Mine"}, **who),
            await harness.patch(f"/v1/drives/{ref}", {}, **who),
            await harness.post(f"/v1/drives/{ref}/creators", CREATOR, **who),
            *[await harness.post(f"/v1/drives/{ref}/{move}", **who) for move in ("open", "pause", "close")],
        ]
        assert {(reply.status, reply.json()["type"]) for reply in replies} == {
            (403, "/problems/not-your-drive")
        }
        assert (await harness.read(f"/v1/drives/{ref}", **who)).json() == made.json() | {"moderation": None}
    assert await harness.announced() == announced


@pytest.mark.parametrize(("partner", "scopes"), [("charity", DRIVES), ("default", ("admin",))])
async def test_owner_and_admin_can_change_a_drive(
    harness: Harness, partner: str, scopes: tuple[str, ...]
) -> None:
    await harness.post("/v1/drives", a_drive(), partner="charity", scopes=DRIVES)
    who: dict[str, Any] = {"partner": partner, "scopes": scopes}
    changed = await harness.patch("/v1/drives/winter", {"title": "Winter", "partners": ["shop"]}, **who)
    assert (changed.status, changed.json()["partners"], changed.json()["partner"]) == (
        200,
        ["shop"],
        "charity",
    )
    assert (await harness.post("/v1/drives/winter/creators", CREATOR, **who)).status == 201
    for move in ("open", "pause", "resume", "close"):
        assert (await harness.post(f"/v1/drives/winter/{move}", **who)).status == 200


async def test_every_partner_can_pledge_unless_the_drive_lists_partners(harness: Harness) -> None:
    await harness.drive()

    async def answers() -> dict[str, int]:
        partners = ("default", "shop", "app")
        return {one: (await harness.pledge(partner=one, scopes=PLEDGES)).status for one in partners}

    assert await answers() == {"default": 201, "shop": 201, "app": 201}
    for partners, expected in (
        (["shop"], {"default": 201, "shop": 201, "app": 403}),
        ([], {"default": 201, "shop": 403, "app": 403}),
        (None, {"default": 201, "shop": 201, "app": 201}),
    ):
        reply = await harness.patch("/v1/drives/winter", {"partners": partners})
        assert (reply.status, reply.json()["partners"]) == (200, partners)
        assert await answers() == expected


async def test_unlisted_partner_is_refused_with_every_key_and_admin_is_allowed(
    harness: Harness,
) -> None:
    await harness.drive(partners=["shop"])
    left_out = [
        await harness.pledge(partner="app", scopes=PLEDGES),
        await harness.pledge(partner="app", scopes=PLEDGES, publishable=True),
    ]
    assert {(reply.status, reply.json()["type"]) for reply in left_out} == {
        (403, "/problems/partner-not-admitted")
    }
    assert (await harness.pledge(partner="app", scopes=("admin",))).status == 201


async def test_replay_works_after_its_partner_was_unlisted(harness: Harness) -> None:
    await harness.drive()
    first = await harness.pledge(key="k", partner="shop", scopes=PLEDGES)
    await harness.patch("/v1/drives/winter", {"partners": []})
    again = await harness.pledge(key="k", partner="shop", scopes=PLEDGES)
    assert (again.body, again.headers["idempotency-replayed"]) == (first.body, "true")
    assert (await harness.pledge(key="j", partner="shop", scopes=PLEDGES)).status == 403


async def test_pledge_of_the_hosted_form_belongs_to_the_owner_of_the_drive(harness: Harness) -> None:
    await harness.post("/v1/drives", a_drive(partners=[]), partner="charity", scopes=DRIVES)
    await harness.post("/v1/drives/winter/open", partner="charity", scopes=DRIVES)
    form: dict[str, Any] = {"scopes": ("pledges", HOSTED_FORM), "publishable": True}
    donor = {"email": "a@example.org"}
    by_form = await harness.pledge(a_pledge(donor=donor), **form)
    by_key = await harness.pledge(a_pledge(donor=donor), partner="charity", scopes=PLEDGES)
    assert (by_form.status, by_key.status) == (201, 201)
    made = [event for event in await harness.announced() if isinstance(event, PledgeMade)]
    assert {event.partner for event in made} == {"charity"}
    assert len({event.donor_id for event in made}) == 1


@pytest.mark.parametrize(
    "partners",
    ["shop", ["Not A Partner"], [""], ["a" * 64], ["shop", "shop"], [5], [f"p{n}" for n in range(101)]],
)
async def test_invalid_list_of_partners_is_refused(harness: Harness, partners: object) -> None:
    made = await harness.post("/v1/drives", a_drive(partners=partners))
    assert (made.status, made.json()["errors"][0]["pointer"].split("/")[1]) == (422, "partners")
    await harness.drive()
    changed = await harness.patch("/v1/drives/winter", {"partners": partners})
    assert (changed.status, changed.json()["errors"][0]["pointer"].split("/")[1]) == (422, "partners")


async def test_stored_reply_requires_a_key_of_the_drives_mode(harness: Harness) -> None:
    """A partner's test key shares the idempotency keys of its live keys."""
    await harness.drive()
    assert (await harness.pledge(key="k")).status == 201
    assert (await harness.post("/v1/drives/winter/creators", CREATOR, key="c")).status == 201
    replies = [
        await harness.pledge(key="k", mode="test"),
        await harness.pledge(a_pledge("9.00"), key="k", mode="test"),
        await harness.post("/v1/drives/winter/creators", CREATOR, key="c", mode="test"),
        await harness.post("/v1/drives", a_drive(), key="d", mode="test"),
    ]
    assert {(reply.status, reply.json()["type"]) for reply in replies} == {(403, "/problems/forbidden")}
