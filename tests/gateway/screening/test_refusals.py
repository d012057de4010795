"""Pledges of refused clients, and past an address's limit, are answered 429."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from backbone.clock import rfc3339
from gateway.access.limits import RateLimit
from gateway.settings import GatewaySettings
from tests.gateway.harness import ADMIN, Harness, bearer, gateway
from tests.waiting import until

PLEDGES = "/v1/drives/winter/pledges"
DONOR, OTHER = "81.2.69.142", "81.2.69.143"


async def give(harness: Harness, key: str, address: str = DONOR) -> tuple[int, Any, Any]:
    here = {"Origin": "https://give.example", "Idempotency-Key": "k", "X-Forwarded-For": address}
    return await harness.post(PLEDGES, {}, **bearer(key), **here)


def clients(harness: Harness) -> list[str | None]:
    """The clients that pledges was told of."""
    made = (each for each in harness.pledges.received if each.path == PLEDGES)
    return [each.headers.get("ataa-client") for each in made]


async def test_refused_client_is_answered_429_until_the_refusal_ends(tmp_path: Path) -> None:
    async with gateway(tmp_path, trusted_proxies="127.0.0.1") as harness:
        key = await harness.key(kind="publishable", origins=["https://give.example"])
        assert (await give(harness, key))[0] == 201
        (client,) = clients(harness)
        assert client is not None
        until_then = rfc3339(harness.clock.now() + timedelta(seconds=3))
        rows = [{"number": 7, "client": client, "until": until_then}]
        harness.payments.answers["GET /internal/refused-clients"] = lambda request: (
            200, rows if request.query == "after=0" else []
        )  # fmt: skip

        async def refused() -> tuple[int, Any, Any] | None:
            answer = await give(harness, key)
            return answer if answer[0] == 429 else None

        _, headers, problem = await until(refused)
        assert problem["type"] == "/problems/too-many-requests"
        assert 1 <= int(headers["Retry-After"]) <= 3
        assert headers["RateLimit"].startswith('"declines";r=0;t=')
        assert headers["RateLimit-Policy"] == '"declines";q=3;w=3600'
        assert (await give(harness, key, OTHER))[0] == 201
        assert (await give(harness, ADMIN))[0] == 201

        async def admitted() -> bool:
            return (await give(harness, key))[0] == 201

        assert await until(admitted)


async def test_clients_are_named_for_donors_and_not_for_partners_servers(tmp_path: Path) -> None:
    async with gateway(tmp_path, trusted_proxies="127.0.0.1") as harness:
        public = await harness.key(kind="publishable", origins=["https://give.example"])
        secret = await harness.key(kind="secret", scopes=["pledges"])
        for key, address in ((public, DONOR), (secret, DONOR), (public, "10.0.0.9")):
            assert (await give(harness, key, address))[0] == 201
        first, *others = clients(harness)
        assert first is not None
        assert others == [None, None]


async def test_client_cannot_name_itself(tmp_path: Path) -> None:
    async with gateway(tmp_path) as harness:
        key = await harness.key(kind="publishable", origins=["https://give.example"])
        here = {"Origin": "https://give.example", "Idempotency-Key": "k", "Ataa-Client": "somebody_else"}
        assert (await harness.post(PLEDGES, {}, **bearer(key), **here))[0] == 201
        assert clients(harness) == [None]


async def test_pledges_of_a_publishable_key_are_limited_whatever_their_addresses(tmp_path: Path) -> None:
    settings = {"trusted_proxies": "127.0.0.1", "limit_pledges_key_per_min": 3.0}
    async with gateway(tmp_path, **settings) as harness:
        key, other = [
            await harness.key(kind="publishable", origins=["https://give.example"]) for _ in range(2)
        ]
        addresses = (DONOR, OTHER, "10.0.0.9", DONOR)
        assert [(await give(harness, key, each))[0] for each in addresses] == [201, 201, 201, 429]
        _, headers, _ = await give(harness, key)
        assert headers["RateLimit-Policy"] == '"pledges-key";q=3;w=60'
        assert (await give(harness, other))[0] == 201
        assert [(await give(harness, ADMIN))[0] for _ in range(5)] == [201] * 5


def test_surges_through_one_key_are_never_refused() -> None:
    """40 pledges a second for 15 minutes, then 116 for a minute, then 350 for ten seconds, at the default."""
    at = 0.0
    limit = RateLimit("k", GatewaySettings().limit_pledges_key_per_min / 60, 60.0, lambda: at)
    for per_s, seconds in ((40, 900), (116, 60), (350, 10)):
        for _ in range(per_s * seconds):
            at += 1 / per_s
            limit.take("key_of_a_partner")


async def test_pledges_of_an_address_are_limited(tmp_path: Path) -> None:
    settings = {"trusted_proxies": "127.0.0.1", "limit_pledges_address_per_min": 3.0}
    async with gateway(tmp_path, **settings) as harness:
        key = await harness.key(kind="publishable", origins=["https://give.example"])
        assert [(await give(harness, key))[0] for _ in range(4)] == [201, 201, 201, 429]
        _, headers, _ = await give(harness, key)
        assert headers["RateLimit-Policy"] == '"pledges";q=3;w=60'
        assert (await give(harness, key, OTHER))[0] == 201
        assert [(await give(harness, ADMIN))[0] for _ in range(5)] == [201] * 5
