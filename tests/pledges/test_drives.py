"""Drives and creators through the API: creation, validation, state transitions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backbone.contracts.pledges import CreatorChanged, DriveChanged, DriveState
from services.pledges.domain import TRANSITIONS, DriveTransition
from services.pledges.moderation.alerts import AlertAction
from services.pledges.moderation.states import Action
from tests.pledges.harness import Harness, a_drive, usd


async def test_created_drive_is_shown_with_all_its_fields(harness: Harness) -> None:
    sent = a_drive(
        title={"en": "Winter", "ar": "شتاء"},
        description="Blankets.",
        starts_at="2022-01-07T12:00:00Z",
        ends_at="2022-01-18T15:00:00+03:00",
        beneficiaries=[{"name": "A", "share_bps": 7000}, {"name": "B", "share_bps": 3000}],
        permit="MOSA 12",
        zakat_eligible=True,
        impact=[{"label": {"en": "a blanket"}, "cost": usd("10.00")}],
        milestones=[{"title": "half", "amount": usd("500.00")}],
        menu=[usd("5.00"), usd("10.00")],
        test=True,
    )
    made = await harness.post("/v1/drives", sent, key="k")
    assert made.status == 201
    view = made.json()
    assert view["ends_at"] == "2022-01-18T12:00:00.000Z"
    times = {"starts_at", "ends_at"}
    assert {name: view[name] for name in sent if name not in times} == {
        name: value for name, value in sent.items() if name not in times
    }
    assert view["state"] == "draft"
    assert (await harness.get("/v1/drives/winter")).json() == view
    assert (await harness.get(f"/v1/drives/{view['id']}")).json() == view
    assert (await harness.post("/v1/drives", sent, key="k")).body == made.body
    announced = await harness.announced()
    assert [type(event) for event in announced] == [DriveChanged]


@pytest.mark.parametrize(
    "fields",
    [
        {"slug": "Winter"}, {"slug": ""}, {"slug": "a" * 65}, {"slug": "a_b"}, {"slug": "شتاء"},
        {"slug": None}, {"title": ""}, {"title": {}}, {"title": {"en": ""}}, {"title": {"english!": "x"}},
        {"title": "x" * 201},
        {"title": {"en": "a\x00"}}, {"title": "\ud800"}, {"title": 5}, {"description": ["x"]},
        {"currency": "usd"}, {"currency": "XXX"}, {"currency": "EUR"}, {"goal": usd("0.00")}, {"goal": "5"},
        {"beneficiaries": [{"name": "A", "share_bps": 9999}]}, {"beneficiaries": [{"name": "A"}]},
        {"milestones": [{"title": "x", "amount": {"currency": "EUR", "value": "5.00"}}]},
        {"menu": [usd("0.00")]}, {"impact": [{"label": "x"}]},
        {"starts_at": "2022-01-07T12:00:00Z", "ends_at": "2022-01-07T12:00:00Z"},
        {"starts_at": 1}, {"starts_at": "1700000000"}, {"starts_at": "0001-01-01T00:00:00+05:00"},
        {"ends_at": "9999-12-31T23:59:59-05:00"}, {"ends_at": 1.5},
        {"starts_at": "2022-01-07T12:00:00"}, {"zakat_eligible": "yes"}, {"colour": "red"},
    ],
)  # fmt: skip
async def test_invalid_drive_is_refused_and_not_stored(harness: Harness, fields: dict[str, Any]) -> None:
    before = await harness.rows()
    reply = await harness.post("/v1/drives", a_drive() | fields)
    assert (reply.status, reply.json()["type"]) == (422, "/problems/invalid-request")
    assert reply.json()["errors"]
    assert await harness.rows() == before


@pytest.mark.parametrize(
    ("currency", "value", "kind"),
    [
        ("USD", "0.49", "amount-too-small"),
        ("HUF", "25.00", "amount-too-small"),
        ("USD", "1000000.00", "amount-too-large"),
        ("KWD", "5.001", "invalid-request"),
    ],
)
async def test_menu_allows_only_chargeable_amounts(
    harness: Harness, currency: str, value: str, kind: str
) -> None:
    money = {"currency": currency, "value": value}
    sent = a_drive(currency=currency, goal=money | {"value": "5000" + value[-4:]}, menu=[money])
    reply = await harness.post("/v1/drives", sent)
    assert (reply.status, reply.json()["type"]) == (422, f"/problems/{kind}")
    assert value in reply.json()["errors"][0]["detail"]


async def test_drive_slug_is_unique(harness: Harness) -> None:
    replies = await asyncio.gather(*(harness.post("/v1/drives", a_drive()) for _ in range(5)))
    assert sorted(reply.status for reply in replies) == [201, 409, 409, 409, 409]
    assert {reply.json()["type"] for reply in replies if reply.status == 409} == {"/problems/slug-taken"}


async def test_idempotency_key_of_a_drive_replays_or_refuses_another_body(harness: Harness) -> None:
    first = await harness.post("/v1/drives", a_drive(), key="k")
    again = await harness.post("/v1/drives", a_drive(), key="k")
    assert (again.body, again.headers["idempotency-replayed"]) == (first.body, "true")
    other = await harness.post("/v1/drives", a_drive("summer"), key="k")
    assert other.json()["type"] == "/problems/idempotency-key-reused"


@pytest.mark.parametrize("state", list(DriveState))
@pytest.mark.parametrize("what", list(DriveTransition))
async def test_transition_follows_the_table_in_every_state(
    harness: Harness, state: DriveState, what: DriveTransition
) -> None:
    await harness.drive(state=state.value)
    announced = len(await harness.announced())
    reply = await harness.post(f"/v1/drives/winter/{what.value}")
    after = TRANSITIONS[state][what]
    shown = (await harness.get("/v1/drives/winter")).json()["state"]
    news = (await harness.announced())[announced:]
    if after is None:
        assert reply.status == 409
        assert shown == state
        assert news == []
    else:
        assert (reply.status, reply.json()["state"], shown) == (200, after, after)
        assert [event.state for event in news if isinstance(event, DriveChanged)] == (
            [] if after is state else [after]
        )


async def test_every_change_of_a_drive_increments_its_version(harness: Harness) -> None:
    await harness.drive(state="paused")
    versions = [event.version for event in await harness.announced() if isinstance(event, DriveChanged)]
    assert versions == [1, 2, 3]


async def test_changing_a_drive_requires_its_scope_and_mode(harness: Harness) -> None:
    await harness.drive("winter", state="draft")
    for scopes, mode in ((("pledges",), "live"), (("drives",), "test")):
        for path, body in (
            ("/v1/drives/winter/open", None),
            ("/v1/drives/winter/creators", {"slug": "a", "name": "A"}),
            ("/v1/drives", a_drive("other")),
        ):
            reply = await harness.post(path, body, scopes=scopes, mode=mode)  # type: ignore[arg-type]
            assert reply.status == 403
    publishable = await harness.post("/v1/drives", a_drive("other"), scopes=(), publishable=True)
    assert publishable.status == 403
    assert (await harness.post("/v1/drives/winter/open", scopes=("drives",))).status == 200


async def test_test_key_can_read_only_test_drives(harness: Harness) -> None:
    await harness.drive()
    await harness.drive("trial", test=True)
    for slug, status in (("winter", 403), ("trial", 200), ("nobody", 404)):
        for path in (f"/v1/drives/{slug}", f"/v1/drives/{slug}/creators"):
            assert (await harness.read(path, mode="test")).status == status


async def test_creators_are_listed_in_pages(harness: Harness) -> None:
    drive = await harness.drive()
    for number in range(5):
        made = await harness.post(
            f"/v1/drives/{drive}/creators", {"slug": f"c{number}", "name": f"C {number}"}
        )
        assert made.status == 201
        assert made.json()["drive"] == drive
    seen: list[str] = []
    query = "limit=2"
    for _ in range(3):
        page = (await harness.get("/v1/drives/winter/creators", query)).json()
        seen += [creator["slug"] for creator in page["data"]]
        query = f"limit=2&after={page['next']}"
    assert seen == ["c0", "c1", "c2", "c3", "c4"]
    assert page["next"] is None
    assert (await harness.get("/v1/drives/winter/creators", "limit=101")).status == 422
    assert [type(event) for event in await harness.announced()].count(CreatorChanged) == 5


async def test_creator_slug_is_unique_within_a_drive(harness: Harness) -> None:
    await harness.drive()
    await harness.drive("summer")
    body = {
        "slug": "abo",
        "name": "Abo",
        "goal": usd("5.00"),
        "team": "T",
        "channel_url": "https://x.example",
    }
    assert (await harness.post("/v1/drives/winter/creators", body, key="k")).status == 201
    assert (await harness.post("/v1/drives/winter/creators", body, key="k")).headers["idempotency-replayed"]
    assert (await harness.post("/v1/drives/winter/creators", body)).status == 409
    assert (await harness.post("/v1/drives/summer/creators", body)).status == 201
    euros = body | {"slug": "b", "goal": {"currency": "EUR", "value": "5.00"}}
    assert (await harness.post("/v1/drives/winter/creators", euros)).status == 422


async def test_every_public_route_is_documented(harness: Harness) -> None:
    app: Any = harness.service.app
    paths = app.openapi()["paths"]
    assert set(paths) == {
        "/v1/drives", "/v1/drives/{drive}", "/v1/drives/{drive}/creators", "/v1/drives/{drive}/pledges",
        *(f"/v1/drives/{{drive}}/{what.value}" for what in DriveTransition), "/v1/pledges",
        "/v1/pledges/{pledge}/cancel", "/v1/drives/{drive}/messages", "/v1/drives/{drive}/decisions",
        "/v1/messages/{pledge}/history",
        *(f"/v1/messages/{{pledge}}/{action.value}" for action in Action),
        *(f"/v1/drives/{{drive}}/alerts/{action.value}" for action in AlertAction),
    }  # fmt: skip
    pledge = paths["/v1/drives/{drive}/pledges"]["post"]
    assert pledge["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("PledgeRequest")
    assert {"201", "409", "422"} <= set(pledge["responses"])


async def test_drives_are_listed_for_their_partner_newest_first(harness: Harness) -> None:
    ids = []
    for number, partner in enumerate(("abo", "abo", "zed", "abo")):
        body = a_drive(f"d{number}", test=number == 3)
        made = await harness.post("/v1/drives", body, scopes=("drives",), partner=partner)
        ids.append(made.json()["id"])

    async def listed(query: str = "", **who: Any) -> list[str]:
        reply = await harness.read("/v1/drives", query, **{"scopes": ("drives",), "partner": "abo", **who})
        assert reply.status == 200
        return [one["id"] for one in reply.json()["data"]]

    assert await listed() == [ids[3], ids[1], ids[0]]
    assert await listed("limit=2") == [ids[3], ids[1]]
    assert await listed(f"limit=2&after={ids[1]}") == [ids[0]]
    assert await listed(partner="zed") == [ids[2]]
    assert await listed(mode="test") == [ids[3]]
    assert await listed(scopes=("admin",)) == ids[::-1]
    refused = await harness.read("/v1/drives", scopes=("pledges",), partner="abo")
    assert refused.status == 403
