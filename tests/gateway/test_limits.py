from __future__ import annotations

from pathlib import Path

import pytest

from backbone.http.problems import Overloaded, TooManyRequests
from gateway.access import limits
from gateway.access.limits import ConcurrencyLimit, RateLimit, is_loopback
from gateway.settings import GatewaySettings
from tests.gateway.harness import ADMIN, Harness, bearer, gateway

PLEDGES = "/v1/drives/winter/pledges"
HERE = {"Origin": "https://give.example", "Idempotency-Key": "k"}


class ManualClock:
    """A monotonic clock moved by the test."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_rate_limit_allows_a_burst_and_then_the_rate() -> None:
    now = ManualClock()
    limit = RateLimit("key", 2.0, 3.0, now)
    for _ in range(6):
        limit.take("a")
    with pytest.raises(TooManyRequests) as refused:
        limit.take("a")
    assert refused.value.headers == {
        "Retry-After": "1",
        "RateLimit": '"key";r=0;t=1',
        "RateLimit-Policy": '"key";q=6;w=3',
    }
    limit.take("b")
    now.at += 0.5
    limit.take("a")
    with pytest.raises(TooManyRequests):
        limit.take("a")
    now.at += 1000
    for _ in range(6):
        limit.take("a")
    with pytest.raises(TooManyRequests):
        limit.take("a")


def test_slow_rate_limit_names_the_seconds_to_wait() -> None:
    limit = RateLimit("address", 0.1, 1.0, ManualClock())
    limit.take("a")
    with pytest.raises(TooManyRequests) as refused:
        limit.take("a")
    assert refused.value.headers["Retry-After"] == "10"


def test_number_of_buckets_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BUCKETS", 3)
    limit = RateLimit("address", 1.0, 1.0, ManualClock())
    for who in "abcd":
        limit.take(who)
    with pytest.raises(TooManyRequests):
        limit.take("d")
    limit.take("a")


def test_concurrency_limit_is_released_after_an_error() -> None:
    concurrency_limit = ConcurrencyLimit("test", 1)
    with pytest.raises(ValueError, match="inside"), concurrency_limit:
        raise ValueError("inside")
    with concurrency_limit, pytest.raises(Overloaded), concurrency_limit:
        pass
    assert concurrency_limit.in_flight == 0


@pytest.mark.parametrize(
    ("address", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("", True),
     ("10.0.0.1", False), ("203.0.113.7", False), ("2001:db8::1", False), ("::ffff:203.0.113.7", False),
     ("nonsense", False)],
)  # fmt: skip
def test_loopback_addresses_are_recognized(address: str, own: bool) -> None:
    assert is_loopback(address) is own


async def test_publishable_key_is_limited_and_secret_key_is_not(tmp_path: Path) -> None:
    async with gateway(tmp_path, limit_key_per_s=0.5, limit_burst_s=4) as harness:
        public = await harness.key(kind="publishable", origins=["https://give.example"])
        secret = await harness.key(kind="secret", scopes=["pledges"])
        statuses = [(await harness.post(PLEDGES, {}, **bearer(public), **HERE))[0] for _ in range(2)]
        assert statuses == [201, 201]
        status, headers, problem = await harness.post(PLEDGES, {}, **bearer(public), **HERE)
        assert (status, problem["type"]) == (429, "/problems/too-many-requests")
        assert headers["Retry-After"] == "2"
        assert headers["RateLimit"] == '"key";r=0;t=2'
        assert headers["RateLimit-Policy"] == '"key";q=2;w=4'
        for key in (secret, ADMIN):
            assert {(await harness.post(PLEDGES, {}, **bearer(key), **HERE))[0] for _ in range(5)} == {201}


async def test_address_without_a_secret_key_is_limited(harness: Harness) -> None:
    from backbone.http.service_client import asgi_scope

    async def read(address: str, authorization: str = "") -> int:
        statuses = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = {"authorization": authorization} if authorization else {}
        scope = asgi_scope("GET", "/v1/pledges/plg_x", headers, "" if authorization else "token=x")
        await harness.service.app({**scope, "client": (address, 1)}, receive, send)  # type: ignore[arg-type]
        return int(str(statuses[0]))

    assert {await read("203.0.113.7") for _ in range(200)} == {404}
    assert 429 in {await read("203.0.113.7") for _ in range(50)}
    assert await read("203.0.113.8") == 404
    assert {await read("127.0.0.1") for _ in range(300)} == {404}
    assert {await read("203.0.113.7", f"Bearer {ADMIN}") for _ in range(300)} == {404}


async def test_client_address_is_read_from_a_trusted_proxy(tmp_path: Path) -> None:
    settings = {"trusted_proxies": "10.0.0.0/8, 127.0.0.1", "limit_address_per_s": 0.5, "limit_burst_s": 4.0}
    async with gateway(tmp_path, **settings) as harness:

        async def reads(forwarded: str) -> list[int]:
            return [
                (await harness.get("/v1/pledges/plg_x?token=x", **{"X-Forwarded-For": forwarded}))[0]
                for _ in range(3)
            ]

        assert await reads("203.0.113.7") == [404, 404, 429]
        assert await reads("203.0.113.8") == [404, 404, 429]
        # The client's own header value comes before the address that the proxy adds.
        assert await reads("203.0.113.9, 203.0.113.7, 10.1.2.3") == [429] * 3


async def test_x_forwarded_for_of_an_untrusted_client_is_ignored(tmp_path: Path) -> None:
    settings = {"trusted_proxies": "10.0.0.0/8", "limit_address_per_s": 0.5, "limit_burst_s": 4.0}
    async with gateway(tmp_path, **settings) as harness:
        for _ in range(5):  # loopback has no limit, whatever its header contains
            status, *_ = await harness.get("/v1/pledges/plg_x?token=x", **{"X-Forwarded-For": "203.0.113.7"})
            assert status == 404


@pytest.mark.parametrize("wrong", ["nonsense", "10.0.0.1/8", "10.0.0.0/8;192.168.0.1"])
def test_invalid_trusted_proxy_stops_startup(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="addresses or networks"):
        GatewaySettings(data_dir=tmp_path, trusted_proxies=wrong)
