"""The public route: the newest audit, at most one a minute, made by the worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update

from backbone.http.caller import sign_caller
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.service import new_app
from services.leaderboard import tables as board
from services.payments.proof import store
from services.payments.proof.api import audit_routes
from tests.payments.harness import SECRET
from tests.payments.proof.audited import Audited, audited
from tests.waiting import until


@pytest.fixture(params=["sqlite", "postgresql"])
async def system(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Audited]:
    async with audited(tmp_path, request.param) as found:
        yield found


def client_of(system: Audited) -> InProcessServiceClient:
    app = new_app("payments", SECRET)
    lookup = system.auditor._drives
    routes = audit_routes(system.books.database, system.auditor, system.audit, lookup, system.books.clock)
    app.include_router(routes)
    return InProcessServiceClient(app)


async def read(client: InProcessServiceClient, drive: str = "winter") -> ServiceResponse:
    headers = sign_caller(SECRET, partner="public", scopes=())
    return await client.request("GET", f"/v1/drives/{drive}/audit", headers=headers)


async def first_audit(system: Audited, client: InProcessServiceClient) -> dict[str, Any]:
    """The first read, which waits for the worker's audit."""
    reading = asyncio.create_task(read(client))
    await until(system.auditor.asked.is_set)
    assert await system.auditor.run_due(routine=False)
    reply = await reading
    assert reply.status == 200, reply.body
    return reply.json()  # type: ignore[no-any-return]


async def test_first_read_waits_for_the_audit(system: Audited) -> None:
    await system.pay("pi_1")
    await system.deliver()
    found = await first_audit(system, client_of(system))
    money = {"currency": "USD", "value": "25.00"}
    nothing = {"currency": "USD", "value": "0.00"}
    assert (found["drive"], found["slug"]) == (system.drive.drive_id, "winter")
    assert (found["ledger"], found["totals"], found["processor"]) == (money, money, money)
    assert (found["held"], found["difference"], found["differences"]) == (nothing, nothing, 0)
    assert (found["settled"], found["in_transit"], found["payments"]) == (True, 0, 1)
    assert (found["epoch"], found["sequence"], found["log_verified"]) == (1, 2, True)
    assert len(found["head_hash"]) == 64
    assert found["other_currencies"] == []


async def test_reads_within_a_minute_ask_for_no_further_audit(system: Audited) -> None:
    client = client_of(system)
    first = await first_audit(system, client)
    await system.pay("pi_1")
    await system.deliver()
    system.books.clock.move(59)
    assert (await read(client)).json() == first
    assert not await system.auditor.run_due(routine=False)
    system.books.clock.move(1)
    assert (await read(client)).json() == first
    assert await system.auditor.run_due(routine=False)
    assert not await system.auditor.run_due(routine=False)
    assert (await read(client)).json()["ledger"]["value"] == "25.00"


async def test_running_drive_is_audited_every_quarter_of_an_hour_unasked(system: Audited) -> None:
    assert await system.auditor.run_due()
    assert not await system.auditor.run_due()
    system.books.clock.move(15 * 60 + 1)
    assert await system.auditor.run_due()
    made = await store.read_proof(system.books.database, system.drive.drive_id)
    assert made.made_at == system.books.clock.now()


async def test_differences_are_measured_and_logged_and_disappear_with_the_next_audit(system: Audited) -> None:
    def measured() -> tuple[float | None, float | None]:
        names = ("ataa_audit_difference_minor_units", "ataa_audit_differences")
        values = [REGISTRY.get_sample_value(name, {"currency": "USD"}) for name in names]
        return values[0], values[1]

    await system.pay("pi_1")
    await system.deliver()
    changed = board.drives.c.captured
    await system.change("leaderboard", update(board.drives).values(captured=changed + 7))
    await system.auditor.run_due()
    assert measured() == (7.0, 2.0)  # the total, and the log that adds up to another one
    await system.change("leaderboard", update(board.drives).values(captured=changed - 7))
    system.books.clock.move(3_600)
    await system.auditor.run_due()
    assert measured() == (0.0, 0.0)
    assert not await system.auditor.run_due()
    assert REGISTRY.get_sample_value("ataa_audit_timestamp_seconds")


async def test_unknown_drive_has_no_audit(system: Audited) -> None:
    for drive in ("summer", "drv_00000000000000000000000009", "%00", "a" * 500):
        assert (await read(client_of(system), drive)).status == 404


async def test_audit_step_by_step_over_http_is_the_same(system: Audited) -> None:
    await system.pay("pi_1")
    await system.deliver()
    client = client_of(system)
    headers = {
        "content-type": "application/json",
        **sign_caller(SECRET, partner="ataa", scopes=("internal",)),
    }
    body = b'{"drive": "winter"}'
    reply = await client.request("POST", "/internal/audit/begin", headers=headers, body=body)
    steps = 0
    while (state := reply.json()["state"])["stage"] != "done":
        steps += 1
        body = json.dumps(state).encode()
        reply = await client.request("POST", "/internal/audit/step", headers=headers, body=body)
        assert reply.status == 200, reply.body
    assert steps == 3
    assert reply.json()["progress"] == 1.0
    assert state["sums"]["USD"]["ledger"] == 2_500
