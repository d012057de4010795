"""Stored webhooks for operators: listed, retried on request, pruned after their retention."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, func, insert, select, text, update

from backbone.database.database import Database
from backbone.http.caller import sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.service import new_app
from services.payments.api import Dependencies, routes
from services.payments.tables import APPLIED, IGNORED, QUARANTINED, WAITING, WEBHOOKS
from services.payments.webhooks.log import prune_applied, prune_texts
from tests.payments.books import Books
from tests.payments.stripe_events import OURS, an_event, as_stored, intent_succeeded, session_completed
from tests.rounds import retry_quarantined
from tests.waiting import until

SECRET = "internal-secret"
DAY_S = 86_400.0


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class WebhookApi:
    """Sends payments an operator's requests, as the gateway forwards them."""

    def __init__(self, books: Books) -> None:
        self.app = new_app("payments", SECRET)
        unused: Any = None
        dependencies = Dependencies(
            database=books.database, store=books.store, refunds=unused, backfill=unused,
            publishable_key="", clock=books.clock, outbox_empty=unused, behind=unused,
        )  # fmt: skip
        self.app.include_router(routes(dependencies))

    async def ask(self, method: str, path: str, query: str = "", scope: str = "admin") -> ServiceResponse:
        headers = sign_caller(SECRET, partner="default", scopes=(scope,))
        return await InProcessServiceClient(self.app).request(method, path, headers=headers, query=query)

    async def page(self, query: str = "") -> dict[str, Any]:
        reply = await self.ask("GET", "/v1/webhooks", query)
        assert reply.status == 200, reply.body
        found: dict[str, Any] = reply.json()
        return found


def poison(n: int = 1) -> dict[str, Any]:
    return an_event("refund.created", {"id": f"re_{n}", "payment_intent": "pi_1"})


async def of_each_state(books: Books) -> dict[str, str]:
    """Store one webhook in each state; returns their ids."""
    events = {
        "applied": session_completed("cs_1", "pi_1", 100, OURS),
        "ignored": intent_succeeded("pi_shop", 100, {}),
        "set_aside": poison(),
    }
    await books.apply(list(events.values()))
    events["waiting"] = intent_succeeded("pi_2", 100, OURS)
    await books.store.keep_all([as_stored(events["waiting"])])
    return {state: event["id"] for state, event in events.items()}


async def test_webhooks_are_listed_by_state_without_their_body(books: Books) -> None:
    api, ids = WebhookApi(books), await of_each_state(books)
    for state, event_id in ids.items():
        page = await api.page(f"state={state}")
        assert page["next"] is None
        (one,) = page["data"]
        assert (one["id"], one["state"]) == (event_id, state)
        assert one.keys() == {
            "id", "type", "state", "tries", "reason", "created_at", "received_at", "next_try_at"
        }  # fmt: skip
        assert b"donor@example.org" not in json.dumps(page).encode()
    (quarantined,) = (await api.page("state=set_aside"))["data"]
    assert (quarantined["tries"], quarantined["type"]) == (1, "refund.created")
    assert "currency" in quarantined["reason"]
    assert quarantined["next_try_at"] == "2022-01-07T12:01:00.000Z"
    assert (await api.page("state=ignored"))["data"][0]["reason"] == "foreign"
    assert len((await api.page())["data"]) == 4


async def test_consecutive_pages_omit_nothing(books: Books) -> None:
    api = WebhookApi(books)
    await books.apply([poison(n) for n in range(7)])
    await books.store.keep_all([as_stored(intent_succeeded("pi_2", 100, OURS))])
    seen: list[str] = []
    query = "state=set_aside&limit=3"
    while True:
        page = await api.page(query)
        assert len(page["data"]) <= 3
        seen += [one["id"] for one in page["data"]]
        if page["next"] is None:
            break
        query = f"state=set_aside&limit=3&after={page['next']}"
    async with books.database.reading() as session:
        every = await session.execute(
            select(WEBHOOKS.c.event_id)
            .where(WEBHOOKS.c.state == QUARANTINED)
            .order_by(WEBHOOKS.c.number.desc())
        )
        assert seen == [row.event_id for row in every]


@pytest.mark.parametrize(
    "query", ["state=gone", "state=0", "limit=0", "limit=101", "after=x", "after=-1", "after=" + "9" * 19]
)
async def test_an_invalid_query_is_a_422(books: Books, query: str) -> None:
    reply = await WebhookApi(books).ask("GET", "/v1/webhooks", query)
    assert (reply.status, reply.headers["content-type"]) == (422, "application/problem+json")


async def test_only_admins_list_and_retry(books: Books) -> None:
    api, ids = WebhookApi(books), await of_each_state(books)
    for method, path in (("GET", "/v1/webhooks"), ("POST", f"/v1/webhooks/{ids['set_aside']}/retry")):
        assert (await api.ask(method, path, scope="webhooks")).status == 403
        assert (await api.ask(method, path)).status == 200


async def test_a_requested_retry_is_due_at_once(books: Books) -> None:
    api, ids = WebhookApi(books), await of_each_state(books)
    for _ in range(12):
        books.clock.move(DAY_S / 4)
        await retry_quarantined(books.applier)
    assert await retry_quarantined(books.applier) == 0
    reply = await api.ask("POST", f"/v1/webhooks/{ids['set_aside']}/retry")
    assert (reply.status, reply.json()["state"]) == (200, "set_aside")
    assert reply.json()["next_try_at"] == "2022-01-10T12:00:00.000Z"
    assert await retry_quarantined(books.applier) == 1


async def test_an_ignored_webhook_can_be_applied_after_all(books: Books, tmp_path: Path) -> None:
    """As after a wrong ATAA_STRIPE_FOREIGN or ATAA_STRIPE_ACCOUNT."""
    event = intent_succeeded("pi_1", 2_500, OURS) | {"account": "acct_1"}
    await books.apply([event])
    api = WebhookApi(books)
    assert (await api.ask("POST", f"/v1/webhooks/{event['id']}/retry")).status == 200
    await retry_quarantined(books.applier)
    assert [one["state"] for one in (await api.page())["data"]] == ["ignored"]  # it is still not for us
    books.applier._ours = type(books.applier._ours)(id="acct_1")
    assert (await api.ask("POST", f"/v1/webhooks/{event['id']}/retry")).status == 200
    await retry_quarantined(books.applier)
    assert [one["state"] for one in (await api.page())["data"]] == ["applied"]


async def test_a_retry_of_a_waiting_or_applied_webhook_changes_nothing(books: Books) -> None:
    api, ids = WebhookApi(books), await of_each_state(books)
    for state in ("waiting", "applied"):
        reply = await api.ask("POST", f"/v1/webhooks/{ids[state]}/retry")
        assert (reply.status, reply.json()["state"]) == (200, state)
    assert (await api.ask("POST", "/v1/webhooks/evt_unknown/retry")).status == 404


# Pruning.


async def bodies(books: Books) -> dict[str, bytes]:
    async with books.database.reading() as session:
        found = await session.execute(select(WEBHOOKS.c.event_id, WEBHOOKS.c.body))
        return {row.event_id: bytes(row.body) for row in found}


async def forget(books: Books, step: Any, days: float, limit: int = 2) -> int:
    before, total = books.clock.now() - timedelta(days=days), 0
    while found := await step(books.database, before, limit):
        assert found <= limit
        total += found
    return total


async def test_bodies_are_emptied_after_their_retention_except_those_still_needed(books: Books) -> None:
    ids = await of_each_state(books)
    assert await forget(books, prune_texts, 14) == 0
    books.clock.move(15 * DAY_S)
    await books.store.keep_all([as_stored(poison(2))])
    assert await forget(books, prune_texts, 14) == 4
    kept = await bodies(books)
    assert {state for state, event_id in ids.items() if kept[event_id]} == {"waiting", "set_aside"}
    assert len([body for body in kept.values() if body]) == 3
    reply = await WebhookApi(books).ask("POST", f"/v1/webhooks/{ids['ignored']}/retry")
    assert (reply.status, reply.json()["type"]) == (409, "/problems/webhook-text-gone")


async def test_ids_are_kept_as_long_as_stripe_lists_events_and_unfinished_webhooks_longer(
    books: Books,
) -> None:
    event = session_completed("cs_1", "pi_1", 100, OURS)
    await books.apply([event])
    ids = await of_each_state(books)
    books.clock.move(34 * DAY_S)
    assert await forget(books, prune_applied, 35) == 0
    assert await books.store.keep_all([as_stored(event)]) == 0  # still a repeat
    books.clock.move(2 * DAY_S)
    young = intent_succeeded("pi_3", 100, OURS)
    await books.store.keep_all([as_stored(young)])
    assert await forget(books, prune_applied, 35, limit=1) == 3
    assert (await bodies(books)).keys() == {ids["set_aside"], ids["waiting"], young["id"]}


async def test_an_event_repeated_after_it_was_pruned_changes_nothing(books: Books) -> None:
    event = intent_succeeded("pi_1", 2_500, OURS)
    await books.apply([event])
    books.clock.move(36 * DAY_S)
    assert await forget(books, prune_applied, 35) == 1
    await books.apply([event])
    async with books.database.reading() as session:
        assert len((await session.execute(text("SELECT * FROM postings"))).all()) == 1


# Query plans.


async def plan(database: Database, statement: Select[Any]) -> str:
    async with database.reading() as session:
        shown = str(
            statement.compile(session, compile_kwargs={"literal_binds": True})  # type: ignore[arg-type]
        )
        how = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        return "\n".join(" ".join(map(str, row)) for row in await session.execute(text(how + shown)))


async def test_no_periodic_statement_scans_a_large_table(books: Books) -> None:
    made = {"type": "x", "body": b"{}", "tries": 0, "created_at": books.clock.now()}
    async with books.database.transaction() as session:
        for start in range(0, 30_000, 5_000):
            some = [
                made | {"event_id": f"evt_many_{n}", "state": APPLIED, "received_at": books.clock.now()}
                for n in range(start, start + 5_000)
            ]
            await session.execute(insert(WEBHOOKS), some)
        for state in (WAITING, QUARANTINED, IGNORED):
            some = [
                made | {"event_id": f"evt_{state}_{n}", "state": state, "received_at": books.clock.now()}
                for n in range(3)
            ]
            await session.execute(insert(WEBHOOKS), some)
    if not books.database.is_sqlite:
        async with books.database.transaction() as session:
            await session.execute(text("ANALYZE webhooks"))
    for statement in statements(books):
        found = await plan(books.database, statement)
        assert "Seq Scan" not in found, (str(statement), found)
        assert "SCAN webhooks\n" not in found + "\n", (str(statement), found)


def statements(books: Books) -> list[Select[Any]]:
    """The periodic statements of the applier, the relay's floor, the gauge and the listing."""
    now, state, number = books.clock.now(), WEBHOOKS.c.state, WEBHOOKS.c.number
    at = WEBHOOKS.c.next_try_at
    return [
        select(WEBHOOKS).where(state == WAITING).order_by(number).limit(200),
        select(func.count()).where(state == QUARANTINED),
        select(WEBHOOKS).where(state == QUARANTINED, at.is_(None) | (at <= now)).order_by(at).limit(20),
        select(WEBHOOKS.c.received_at)
        .where(state == QUARANTINED, WEBHOOKS.c.received_at > now, WEBHOOKS.c.type.in_(["a", "b"]))
        .order_by(WEBHOOKS.c.received_at)
        .limit(1),
        select(WEBHOOKS).where(state == IGNORED).order_by(number.desc()).limit(26),
        select(WEBHOOKS).where(state == QUARANTINED).order_by(number.desc()).limit(26),
    ]


@pytest.mark.parametrize("step", [prune_texts, prune_applied])
async def test_a_webhook_queued_for_retry_while_being_pruned_is_kept(books: Books, step: Any) -> None:
    ids = await of_each_state(books)
    books.clock.move(40 * DAY_S)
    async with books.database.transaction() as session:
        this = WEBHOOKS.c.event_id == ids["ignored"]
        await session.execute(update(WEBHOOKS).where(this).values(state=QUARANTINED))
        forgetting = asyncio.create_task(step(books.database, books.clock.now() - timedelta(days=36), 100))
        if not books.database.is_sqlite:  # on SQLite it cannot even read before this transaction ends
            await until(lambda: is_blocked(books))
    await forgetting
    assert (await bodies(books))[ids["ignored"]]


async def is_blocked(books: Books) -> bool:
    """Whether a transaction waits for a row lock."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    async with books.database.reading() as session:
        return bool((await session.execute(waiting)).scalar_one())
