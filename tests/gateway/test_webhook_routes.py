"""Routes for operators about Stripe's webhooks: forwarded to payments for admin keys only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gateway.harness import ADMIN, Harness, bearer, gateway

ROUTES = (("GET", "/v1/webhooks"), ("POST", "/v1/webhooks/evt_1NG8Du2eZvKYlo2CUI79vXWy/retry"))


async def status(harness: Harness, method: str, path: str, key: str | None) -> tuple[int, str]:
    headers = {"Origin": "https://example.org"} | (bearer(key) if key else {})
    async with harness.session.request(method, path, headers=headers) as reply:
        problem = await reply.json() if reply.status >= 400 else {}
        return reply.status, problem.get("type", "")


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_webhook_routes_require_an_admin_key(tmp_path: Path, method: str, path: str) -> None:
    async with gateway(tmp_path) as harness:
        harness.payments.answers[f"{method} {path}"] = (200, {"data": [], "next": None})
        partner = await harness.key(kind="secret", scopes=["webhooks", "ledger"])
        publishable = await harness.key(kind="publishable", origins=["https://example.org"])
        assert await status(harness, method, path, partner) == (403, "/problems/forbidden")
        assert await status(harness, method, path, publishable) == (403, "/problems/forbidden")
        assert await status(harness, method, path, None) == (401, "/problems/unauthorized")
        assert harness.payments.received == []
        assert (await status(harness, method, path, ADMIN))[0] == 200
        (received,) = harness.payments.received
        assert (received.method, received.path) == (method, path)
        assert "admin" in received.caller.scopes


async def test_query_and_problem_are_forwarded(tmp_path: Path) -> None:
    async with gateway(tmp_path) as harness:
        harness.payments.answers["GET /v1/webhooks"] = (422, {"type": "/problems/invalid-request"})
        found, _, problem = await harness.get("/v1/webhooks?state=gone&limit=3", **bearer(ADMIN))
        assert (found, problem["type"]) == (422, "/problems/invalid-request")
        assert harness.payments.received[-1].query == "state=gone&limit=3"
