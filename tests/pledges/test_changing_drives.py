"""PATCH of a drive: which fields may change in which state, and the announced event."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from backbone.contracts.pledges import DriveChanged, DriveState
from backbone.database.database import Database
from services.pledges.domain import CHANGEABLE_FIELDS
from services.pledges.requests import DriveChange
from services.pledges.tables import DRIVES, MESSAGING_TABLES
from tests.pledges.harness import Harness, a_drive, usd

NEW: dict[str, Any] = {
    "slug": "frost",
    "title": {"en": "Frost", "ar": "صقيع"},
    "currency": "EUR",
    "currencies": ["KWD"],
    "goal": usd("2000.00"),
    "starts_at": "2022-01-06T12:00:00.000Z",
    "ends_at": "2022-01-20T12:00:00.000Z",
    "description": "More blankets.",
    "beneficiaries": [{"name": "A", "share_bps": 10_000}],
    "permit": "MOSA 13",
    "zakat_eligible": True,
    "impact": [{"label": "a blanket", "cost": usd("10.00")}],
    "milestones": [{"title": "half", "amount": usd("500.00")}],
    "menu": [usd("5.00")],
    "partners": ["shop", "app"],
    "moderation": {"mode": "all", "auto_approve_below": usd("10.00"), "blocked_words": ["Xyz"]},
    "test": True,
}


def test_table_of_changeable_fields_is_complete() -> None:
    assert set(NEW) == set(DriveChange.model_fields)
    assert set().union(*CHANGEABLE_FIELDS.values()) == set(NEW) - {"currency"}


@pytest.mark.parametrize("state", list(DriveState))
@pytest.mark.parametrize("field", sorted(set(NEW) - {"currency"}))
async def test_field_change_follows_the_table_in_every_state(
    harness: Harness, state: DriveState, field: str
) -> None:
    drive = await harness.drive(state=state.value)
    before, announced = (await harness.get("/v1/drives/winter")).json(), len(await harness.announced())
    reply = await harness.patch("/v1/drives/winter", {field: NEW[field]})
    after = (await harness.get(f"/v1/drives/{drive}")).json()
    news = (await harness.announced())[announced:]
    if field in CHANGEABLE_FIELDS[state]:
        assert (reply.status, reply.json()) == (200, before | {field: NEW[field]})
        assert after == reply.json()
        (event,) = news
        assert isinstance(event, DriveChanged)
        assert event.version == announced + 1
        assert event.state == state
    else:
        assert (reply.status, reply.json()["type"]) == (409, "/problems/drive-field-fixed")
        assert [one["pointer"] for one in reply.json()["errors"]] == [f"/{field}"]
        assert (after, news) == (before, [])


async def test_announced_drive_equals_the_shown_drive(harness: Harness) -> None:
    await harness.drive()
    await harness.patch("/v1/drives/winter", {name: NEW[name] for name in ("title", "goal", "milestones")})
    event = (await harness.announced())[-1]
    assert isinstance(event, DriveChanged)
    assert (event.title, event.goal.minor_units) == (NEW["title"], 200_000)
    assert [(one.title, one.amount.minor_units) for one in event.milestones] == [("half", 50_000)]


async def test_setting_the_current_value_is_no_change(harness: Harness) -> None:
    await harness.drive(**{name: NEW[name] for name in NEW if name not in ("slug", "currency", "test")})
    announced = await harness.announced()
    reply = await harness.patch("/v1/drives/winter", (await harness.get("/v1/drives/winter")).json() and {
        "slug": "winter", "currency": "USD", "starts_at": "2022-01-06T14:00:00+02:00", "test": False,
        "title": NEW["title"], "menu": NEW["menu"],
    })  # fmt: skip
    assert reply.status == 200
    assert (await harness.patch("/v1/drives/winter", {})).status == 200
    assert await harness.announced() == announced


async def test_null_clears_an_optional_field_and_is_refused_for_a_required_one(harness: Harness) -> None:
    await harness.drive(permit="MOSA 12", description="x", ends_at="2030-01-01T00:00:00Z")
    gone = await harness.patch("/v1/drives/winter", {"permit": None, "description": None, "ends_at": None})
    assert (gone.json()["permit"], gone.json()["description"], gone.json()["ends_at"]) == (None, None, None)
    for field in ("title", "goal", "menu"):
        kept = await harness.patch("/v1/drives/winter", {field: None})
        assert (kept.status, kept.json()["errors"][0]["pointer"]) == (422, f"/{field}")


@pytest.mark.parametrize(
    "fields",
    [
        {"goal": usd("0.00")}, {"goal": {"currency": "EUR", "value": "5.00"}}, {"title": ""},
        {"colour": "red"},
        {"currency": "EUR"}, {"ends_at": "2022-01-07T12:00:00"}, {"ends_at": "2021-01-01T00:00:00Z"},
        {"beneficiaries": [{"name": "A", "share_bps": 1}]}, {"title": "a\x00"},
        {"title": "\ud800"}, {"state": "closed"}, {"slug": "A B"},
    ],
)  # fmt: skip
async def test_change_that_makes_the_drive_invalid_is_refused(
    harness: Harness, fields: dict[str, Any]
) -> None:
    await harness.drive(state="draft", starts_at="2022-01-01T00:00:00Z")
    before, announced = (await harness.get("/v1/drives/winter")).json(), await harness.announced()
    reply = await harness.patch("/v1/drives/winter", fields)
    assert (reply.status, reply.json()["type"]) == (422, "/problems/invalid-request")
    assert reply.json()["errors"]
    assert ((await harness.get("/v1/drives/winter")).json(), await harness.announced()) == (before, announced)


async def test_menu_from_before_the_limits_is_kept_until_changed(harness: Harness) -> None:
    await harness.drive(menu=[usd("5.00")])
    database = Database(f"sqlite:///{harness.folder / 'pledges.db'}", MESSAGING_TABLES)
    async with database.transaction() as session:
        await session.execute(update(DRIVES).values(menu=[usd("0.20")]))
    await database.close()
    changed = await harness.patch("/v1/drives/winter", {"title": "Frost", "menu": [usd("0.20")]})
    assert (changed.status, changed.json()["menu"]) == (200, [usd("0.20")])
    for value, kind in (("0.30", "amount-too-small"), ("1000000.00", "amount-too-large")):
        reply = await harness.patch("/v1/drives/winter", {"menu": [usd(value)]})
        assert (reply.status, reply.json()["type"]) == (422, f"/problems/{kind}")


async def test_currency_cannot_be_changed(harness: Harness) -> None:
    await harness.drive(state="draft")
    reply = await harness.patch(
        "/v1/drives/winter", {"currency": "EUR", "goal": {"currency": "EUR", "value": "5.00"}}
    )
    assert (reply.status, reply.json()["type"]) == (409, "/problems/drive-field-fixed")


async def test_change_is_refused_for_a_taken_slug_an_unknown_drive_or_a_missing_scope(
    harness: Harness,
) -> None:
    await harness.drive(state="draft")
    await harness.post("/v1/drives", a_drive("summer"))
    taken = await harness.patch("/v1/drives/winter", {"slug": "summer"})
    assert (taken.status, taken.json()["type"]) == (409, "/problems/slug-taken")
    assert (await harness.patch("/v1/drives/nowhere", {"title": "x"})).status == 404
    assert (await harness.patch("/v1/drives/winter", {"title": "x"}, scopes=("pledges",))).status == 403
    assert (await harness.patch("/v1/drives/winter", {"title": "x"}, mode="test")).status == 403
    await harness.post("/v1/drives", a_drive("trial", test=True))
    assert (await harness.patch("/v1/drives/trial", {"test": False}, mode="test")).status == 403
    assert (await harness.patch("/v1/drives/trial", {"title": "x"}, mode="test")).status == 200
