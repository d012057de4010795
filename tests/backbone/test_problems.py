"""Internal errors: clients can tell whether a retry may succeed."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from backbone.database.database import Database
from backbone.http.service_client import InProcessServiceClient
from backbone.service import new_app
from tests.backbone.notes import MESSAGING_TABLES

NOBODY_LISTENS = "postgresql://nobody@127.0.0.1:1/nothing"


async def from_database() -> None:
    """Query an unavailable database."""
    database = Database(NOBODY_LISTENS, MESSAGING_TABLES)
    try:
        async with database.reading() as session:
            await session.execute(text("SELECT 1"))
    finally:
        await database.close()


async def from_bug() -> None:
    raise KeyError("what a donor wrote")


@pytest.mark.parametrize(
    ("path", "status", "kind", "come_back"),
    [("/database", 503, "overloaded", "1"), ("/bug", 500, "internal-error", None)],
)
async def test_unavailable_database_is_503_and_a_bug_is_500(
    path: str, status: int, kind: str, come_back: str | None
) -> None:
    app = new_app("notes", "secret")
    app.add_api_route("/database", from_database)
    app.add_api_route("/bug", from_bug)
    reply = await InProcessServiceClient(app).request("GET", path, headers={})
    assert (reply.status, reply.headers.get("retry-after")) == (status, come_back)
    assert json.loads(reply.body)["type"] == f"/problems/{kind}"
    assert b"donor" not in reply.body
