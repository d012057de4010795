"""Another partner's key at every route of the API that concerns a drive (docs/api-guide.md, A drive).

The services are the real ones; a route that the tables below do not name fails the first test.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr

from backbone import ids
from backbone.http.service_client import InProcessServiceClient, ServiceResponse
from backbone.service import run_workers
from embedded.app import compose
from tests.pledges.harness import a_drive, a_pledge
from tests.waiting import until

ADMIN: Final = "ak_admin_00000000000000000000"
NEIGHBOUR: Final = (403, "/problems/not-your-drive")
UNPAID: Final = (409, "/problems/pledge-not-paid")

_POOL: Final = {"sponsor": "Acme", "cap": {"currency": "USD", "value": "5.00"}, "ratio": "1.00"}
_CREATOR: Final = {"slug": "abo", "name": "Abo"}
_GIFT: Final = {
    "amount": {"currency": "USD", "value": "150.00"},
    "method": "bank",
    "received_at": "2022-01-07T12:00:00Z",
    "evidence": "line 17",
}
_CONTRIBUTION: Final = {
    "kind": "hours", "quantity": "12.5", "unit": "hour", "label": "Packing", "evidence": "rota"
}  # fmt: skip
_DISBURSEMENT: Final = {
    "beneficiary": "A", "amount": {"currency": "USD", "value": "1.00"}, "paid_at": "2022-02-01T12:00:00Z",
    "reference": "4", "evidence": "line 3",
}  # fmt: skip

OWNED: Final[dict[tuple[str, str], Any]] = {
    ("PATCH", "/v1/drives/{drive}"): {"title": "Mine"},
    ("POST", "/v1/drives/{drive}/open"): None,
    ("POST", "/v1/drives/{drive}/pause"): None,
    ("POST", "/v1/drives/{drive}/resume"): None,
    ("POST", "/v1/drives/{drive}/close"): None,
    ("POST", "/v1/drives/{drive}/creators"): _CREATOR,
    ("POST", "/v1/pledges/{pledge}/refunds"): None,
    ("POST", "/v1/drives/{drive}/matching-pools"): _POOL,
    ("GET", "/v1/drives/{drive}/matching-pools"): None,
    ("POST", "/v1/matching-pools/{pool}/end"): None,
    ("GET", "/v1/drives/{drive}/funnel"): None,
    ("GET", "/v1/drives/{drive}/ledger"): None,
    ("GET", "/v1/drives/{drive}/trial-balance"): None,
    ("GET", "/v1/drives/{drive}/statement"): None,
    ("GET", "/v1/drives/{drive}/messages"): None,
    ("GET", "/v1/drives/{drive}/decisions"): None,
    ("GET", "/v1/messages/{pledge}/history"): None,
    ("POST", "/v1/messages/{pledge}/approve"): None,
    ("POST", "/v1/messages/{pledge}/hide"): None,
    ("POST", "/v1/messages/{pledge}/hold"): None,
    ("POST", "/v1/messages/{pledge}/pin"): None,
    ("POST", "/v1/messages/{pledge}/unpin"): None,
    ("POST", "/v1/drives/{drive}/alerts/pause"): None,
    ("POST", "/v1/drives/{drive}/alerts/resume"): None,
    ("POST", "/v1/drives/{drive}/alerts/skip"): None,
    ("POST", "/v1/drives/{drive}/alerts/replay"): None,
    ("POST", "/v1/drives/{drive}/offline-gifts"): _GIFT,
    ("POST", "/v1/offline-gifts/{gift}/approve"): None,
    ("POST", "/v1/offline-gifts/{gift}/reject"): {"reason": "It bounced"},
    ("POST", "/v1/offline-gifts/{gift}/reverse"): None,
    ("POST", "/v1/drives/{drive}/contributions"): _CONTRIBUTION,
    ("POST", "/v1/contributions/{contribution}/approve"): None,
    ("POST", "/v1/contributions/{contribution}/reject"): {"reason": "A mistake"},
    ("POST", "/v1/drives/{drive}/disbursements"): _DISBURSEMENT,
    ("POST", "/v1/disbursements/{disbursement}/approve"): None,
    ("POST", "/v1/disbursements/{disbursement}/reject"): {"reason": "A mistake"},
    ("POST", "/v1/disbursements/{disbursement}/reverse"): None,
}
"""Routes for a drive's own partner and for admins, each with a valid body."""

OTHERS: Final[dict[tuple[str, str], tuple[Any, int]]] = {
    ("POST", "/v1/drives"): (a_drive("theirs"), 201),
    ("GET", "/v1/drives"): (None, 200),
    ("GET", "/v1/drives/{drive}"): (None, 200),
    ("GET", "/v1/drives/{drive}/creators"): (None, 200),
    ("POST", "/v1/drives/{drive}/pledges"): (a_pledge(), 201),
    ("GET", "/v1/pledges"): (None, 200),
    ("GET", "/v1/pledges/{pledge}"): (None, 404),
    ("POST", "/v1/pledges/{pledge}/cancel"): (None, 404),
    ("GET", "/v1/payments"): (None, 200),
    ("GET", "/v1/payments/{payment}"): (None, 404),
    ("POST", "/v1/payments/{payment}/release"): ({"note": "Mine"}, 404),
    ("POST", "/v1/payments/{payment}/refunds"): (None, 404),
    ("GET", "/v1/refunds"): (None, 200),
    ("POST", "/v1/refunds/{refund}/approve"): (None, 404),
    ("POST", "/v1/refunds/{refund}/reject"): ({"reason": "Mine"}, 404),
    ("POST", "/v1/keys"): ({"kind": "secret"}, 403),
    ("GET", "/v1/keys"): (None, 403),
    ("DELETE", "/v1/keys/{key}"): (None, 403),
    ("POST", "/webhooks/stripe"): ({}, 400),
    ("GET", "/v1/offline-gifts"): (None, 200),
    ("GET", "/v1/payouts"): (None, 403),
    ("PUT", "/v1/rates/{source}/{target}"): ({"rate": "1", "as_of": "2030-01-07T18:00:00Z"}, 403),
    ("GET", "/v1/rates"): (None, 200),
    ("GET", "/v1/contributions"): (None, 200),
    ("GET", "/v1/disbursements"): (None, 200),
    ("GET", "/v1/checkouts"): (None, 403),
    ("POST", "/v1/checkouts/pause"): (None, 403),
    ("POST", "/v1/checkouts/resume"): (None, 403),
    ("GET", "/v1/webhooks"): (None, 403),
    ("POST", "/v1/webhooks/{id}/retry"): (None, 403),
}
"""Every other route that needs a key, with the response to another partner."""


@dataclass
class PublicApi:
    """The API of the whole system, with a drive of the partner `charity` and a pledge made by `shop`."""

    gateway: InProcessServiceClient
    keys: dict[str, str]
    drive: str
    pledge: str
    recorded: dict[str, str] = field(default_factory=dict)
    """What the charity recorded and another key may approve: ids by the names of paths' parameters."""

    async def send(self, who: str, method: str, path: str, body: Any = None) -> ServiceResponse:
        """Send a request with the key of `who` about this drive and this pledge."""
        known = {"drive": self.drive, "pledge": self.pledge, **self.recorded}
        path = re.sub(r"\{(\w+)\}", lambda name: known.get(name[1]) or ids.new("key"), path)
        headers = {"authorization": f"Bearer {self.keys[who]}", "idempotency-key": ids.new("evt")}
        raw = b"" if body is None else json.dumps(body).encode()
        if raw:
            headers["content-type"] = "application/json"
        return await self.gateway.request(method, path, headers=headers, body=raw)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[PublicApi]:
    given = {
        "data_dir": tmp_path, "admin_key": SecretStr(ADMIN), "internal_secret": SecretStr("i" * 20),
        "token_secret": SecretStr("t" * 20), "database_synchronous": "OFF",
        "stripe_api_key": SecretStr("sk_test_x"), "stripe_webhook_secrets": ["whsec_x"],
        "stripe_api_base": "http://127.0.0.1:1",
    }  # fmt: skip
    whole = compose(tmp_path, given)
    services = [*whole.services.values(), whole.gateway]
    for service in services:
        await service.start()
    # Only the workers that carry events; none that calls Stripe.
    wanted = {"pledges.relay", "payments.consumer"}
    for service in services:
        service.workers = [worker for worker in service.workers if worker.name in wanted]
    stop = asyncio.Event()
    working = asyncio.create_task(run_workers(services, stop))
    api = PublicApi(InProcessServiceClient(whole.gateway.app), {"admin": ADMIN}, "winter", "")
    try:
        await _create_data(api)
        yield api
    finally:
        stop.set()
        await whole.bus.publish_watermarks(
            "pledges", ids.created_at(ids.new("evt")), [0]
        )  # ends blocking reads
        await working
        for service in services:
            await service.close()
        await whole.bus.close()


async def _create_data(api: PublicApi) -> None:
    for partner in ("charity", "shop", "neighbour"):
        scopes = ["drives", "pledges", "refunds", "moderation", "offline", "ledger"]
        key_request = {"kind": "secret", "partner": partner, "scopes": scopes}
        api.keys[partner] = (await api.send("admin", "POST", "/v1/keys", key_request)).json()["key"]
    shares = [{"name": "A", "share_bps": 10_000}]
    assert (await api.send("charity", "POST", "/v1/drives", a_drive(beneficiaries=shares))).status == 201
    assert (await api.send("charity", "POST", "/v1/drives/winter/open")).status == 200
    made = await api.send("shop", "POST", "/v1/drives/winter/pledges", a_pledge(message="A warm night"))
    api.pledge = made.json()["id"]

    async def known() -> bool:
        reply = await api.send("shop", "POST", "/v1/pledges/{pledge}/refunds")
        return (reply.status, reply.json()["type"]) == UNPAID

    await until(known)
    raised = await api.send("charity", "POST", "/v1/drives/winter/offline-gifts", _GIFT)
    approved = await api.send("admin", "POST", f"/v1/offline-gifts/{raised.json()['id']}/approve")
    assert approved.status == 200
    for name, route, body in (
        ("gift", "offline-gifts", _GIFT),
        ("contribution", "contributions", _CONTRIBUTION),
        ("disbursement", "disbursements", _DISBURSEMENT),
        ("pool", "matching-pools", _POOL),
    ):
        recorded = await api.send("charity", "POST", f"/v1/drives/winter/{route}", body)
        api.recorded[name] = recorded.json()["id"]


async def test_every_route_is_classified(api: PublicApi) -> None:
    paths = (await api.gateway.request("GET", "/openapi.json", headers={})).json()["paths"]
    operations = {
        (method.upper(), path): operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    keyless = {each for each, operation in operations.items() if operation.get("security") == []}
    changing = {each for each in operations if each[0] != "GET"}
    assert OWNED.keys() | OTHERS.keys() == (operations.keys() - keyless) | changing


@pytest.mark.parametrize("route", OWNED, ids=" ".join)
async def test_other_partner_is_refused_and_owner_and_admin_are_not(
    api: PublicApi, route: tuple[str, str]
) -> None:
    before = (await api.send("charity", "GET", "/v1/drives/{drive}")).json()
    for who in ("neighbour", "shop"):
        if who == "shop" and "{pledge}" in route[1]:
            continue  # it made this pledge
        reply = await api.send(who, *route, OWNED[route])
        assert (reply.status, reply.json()["type"]) == NEIGHBOUR
    assert (await api.send("charity", "GET", "/v1/drives/{drive}")).json() == before
    for who in ("charity", "admin"):
        reply = await api.send(who, *route, OWNED[route])
        assert reply.status in (200, 201, 409), reply.body


@pytest.mark.parametrize("route", OTHERS, ids=" ".join)
async def test_response_of_other_routes_to_another_partner(api: PublicApi, route: tuple[str, str]) -> None:
    body, status = OTHERS[route]
    reply = await api.send("neighbour", *route, body)
    assert reply.status == status
    assert api.pledge not in reply.body.decode()
