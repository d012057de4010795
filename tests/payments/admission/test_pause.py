"""Checkouts paused and resumed by the admin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from backbone.http.caller import sign_caller
from tests.payments.harness import SECRET, Harness, a_drive, a_pledge, running
from tests.waiting import until

ADMIN = sign_caller(SECRET, partner="default", scopes=("admin",), key_id="key_a")


async def as_admin(harness: Harness, method: str, path: str = "", body: Any = None) -> dict[str, Any]:
    reply = await harness.ask(method, f"/v1/checkouts{path}", body, **ADMIN)
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json()
    return found


def paused_metric() -> float | None:
    return REGISTRY.get_sample_value("ataa_checkouts_paused")


async def test_while_paused_pledges_wait_and_are_admitted_after_the_resumption(tmp_path: Path) -> None:
    async with running(tmp_path) as harness:
        drive = a_drive()
        before, after = a_pledge(drive), a_pledge(drive)
        await harness.publish_events(drive, before)
        open_before = await harness.opened(before.pledge_id)
        shown = await as_admin(harness, "POST", "/pause", {"note": "An incident at Stripe."})
        assert shown["state"] == "paused"
        assert (shown["paused"]["by"], shown["paused"]["note"]) == ("key_a", "An incident at Stripe.")
        await harness.publish_events(after)
        told = await until(lambda: _queue(harness, after.pledge_id))
        assert told["position"] >= 1
        assert told["eta_seconds"] >= 1
        await until(lambda: paused_metric() == 1)
        shown = await as_admin(harness, "GET")
        assert (shown["state"], shown["waiting"]) == ("paused", 1)
        await harness.pay(open_before)  # an open checkout can be paid
        await harness.status(before.pledge_id, "paid")
        assert await _queue(harness, after.pledge_id) == told
        shown = await as_admin(harness, "POST", "/resume")
        assert (shown["state"], shown["paused"]) == ("open", None)
        await harness.opened(after.pledge_id)
        await until(lambda: paused_metric() == 0)
        assert (await as_admin(harness, "GET"))["waiting"] == 0


async def test_a_pause_outlasts_a_restart(tmp_path: Path) -> None:
    drive = a_drive()
    pledge = a_pledge(drive)
    async with running(tmp_path) as harness:
        first = await as_admin(harness, "POST", "/pause")
        await harness.publish_events(drive, pledge)
        told = await until(lambda: _queue(harness, pledge.pledge_id))
    async with running(tmp_path) as harness:
        shown = await as_admin(harness, "GET")
        assert shown["paused"] == first["paused"]
        await until(lambda: paused_metric() == 1)
        assert await _queue(harness, pledge.pledge_id) == told
        await as_admin(harness, "POST", "/resume")
        await harness.opened(pledge.pledge_id)


async def test_repeating_a_pause_keeps_the_first_ones_time_and_note(tmp_path: Path) -> None:
    async with running(tmp_path) as harness:
        first = await as_admin(harness, "POST", "/pause", {"note": "first"})
        again = await as_admin(harness, "POST", "/pause", {"note": "second"})
        assert again["paused"] == first["paused"]
        assert await as_admin(harness, "POST", "/resume") == await as_admin(harness, "POST", "/resume")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("POST", "/pause"), ("POST", "/resume")]
)  # fmt: skip
async def test_only_an_admin_may(tmp_path: Path, method: str, path: str) -> None:
    partner = sign_caller(SECRET, partner="default", scopes=("ledger", "pledges", "drives"))
    async with running(tmp_path) as harness:
        reply = await harness.ask(method, f"/v1/checkouts{path}", **partner)
        assert (reply.status, reply.json()["type"]) == (403, "/problems/forbidden")
        assert (await as_admin(harness, "GET"))["state"] == "open"


@pytest.mark.parametrize("body", [{"note": 5}, {"note": "x" * 501}, {"reason": "unknown field"}, [], "no"])
async def test_a_wrong_body_pauses_nothing(tmp_path: Path, body: Any) -> None:
    async with running(tmp_path) as harness:
        reply = await harness.ask("POST", "/v1/checkouts/pause", body, **ADMIN)
        assert reply.status == 422
        assert (await as_admin(harness, "GET"))["state"] == "open"


async def _queue(harness: Harness, pledge: str) -> dict[str, int] | None:
    found: dict[str, int] | None = (await harness.checkout(pledge)).get("queue")
    return found
