from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import ADMIN, PLEDGE, Harness, bearer, gateway
from tests.waiting import PATIENCE_S, until

ROOT = {**bearer(ADMIN), "Idempotency-Key": "k1", "Content-Type": "application/json"}
PLEDGES = "/v1/drives/winter/pledges"


async def send_raw(harness: Harness, sent: bytes) -> bytes:
    """Send bytes and return the response up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", harness.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read()
    finally:
        writer.close()


async def test_request_is_forwarded_unchanged_with_a_signed_caller(harness: Harness) -> None:
    body = b'{ "amount" : 1 }'
    headers = {**ROOT, "X-Request-Id": "mine-1", "User-Agent": "partner/1"}
    async with harness.session.post(f"{PLEDGES}?a=b%20c", data=body, headers=headers) as reply:
        assert reply.status == 201
        assert reply.headers["X-Request-Id"] == "mine-1"
    received = harness.pledges.received[-1]
    assert (received.method, received.path, received.query, received.body) == (
        "POST",
        PLEDGES,
        "a=b%20c",
        body,
    )
    assert received.headers["idempotency-key"] == "k1"
    assert received.headers["x-request-id"] == "mine-1"
    assert received.caller.partner == "default"
    assert received.caller.scopes >= {"admin", "pledges"}


async def test_client_cannot_send_internal_or_hop_by_hop_headers(harness: Harness) -> None:
    key = await harness.key(kind="secret", scopes=["pledges"], partner="shop", mode="test")
    forged_headers = {"Ataa-Caller": "forged", "ATAA-Internal": "1", "Connection": "close, Idempotency-Key",
                "Transfer-Coding": "x", "X-Forwarded-For": "1.2.3.4", "Cookie": "a=b"}  # fmt: skip
    status, _, _ = await harness.post(
        PLEDGES, {}, **{**bearer(key), "Idempotency-Key": "k1"}, **forged_headers
    )
    assert status == 201
    received = harness.pledges.received[-1]
    caller = received.caller
    assert (caller.partner, caller.mode, caller.scopes) == ("shop", "test", {"pledges"})
    assert caller.key_id.startswith("key_")
    assert not caller.publishable
    removed = {"ataa-internal", "connection", "transfer-coding", "x-forwarded-for", "cookie", "authorization"}
    assert not received.headers.keys() & removed


async def test_internal_routes_are_404(harness: Harness) -> None:
    for path in (
        "/internal/books",
        "/internal/pledges",
        "/metrics",
        "/v1/../internal/books",
        "/v1/drives/a%2Fb/open",
    ):
        status, _, problem = await harness.get(path, **bearer(ADMIN))
        assert (status, problem["type"]) == (404, "/problems/not-found"), path


@pytest.mark.parametrize("sent", ["", "a b", "é", "x" * 129, "a\tb"])
async def test_invalid_request_id_is_replaced(harness: Harness, sent: str) -> None:
    _, headers, problem = await harness.get("/v1/nothing", **{"X-Request-Id": sent})
    assert headers["X-Request-Id"] != sent
    assert problem["request_id"] == headers["X-Request-Id"]


async def test_trace_context_is_continued(harness: Harness) -> None:
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    _, headers, _ = await harness.get("/v1/drives/winter", **bearer(ADMIN), traceparent=trace)
    forwarded_trace = harness.pledges.received[-1].headers["traceparent"]
    assert forwarded_trace.startswith("00-" + "a" * 32)
    assert forwarded_trace != trace
    assert headers["traceparent"] == forwarded_trace
    _, headers, _ = await harness.get("/v1/drives/winter", **bearer(ADMIN), traceparent="00-nonsense")
    assert headers["traceparent"].startswith("00-")


async def test_unknown_path_is_404_and_wrong_method_is_405_with_allow(harness: Harness) -> None:
    async with harness.session.put("/v1/drives/winter", headers=bearer(ADMIN)) as reply:
        assert reply.status == 405
        assert reply.headers["Allow"] == "GET, HEAD, OPTIONS, PATCH"
        assert reply.headers["Content-Type"] == "application/problem+json"
    for path in ("/v1", "/v1/", "/v1/drives/", "/v1/drives/winter/", "/v1/drives/win ter/totals"):
        status, headers, problem = await harness.get(path)
        assert (status, problem["type"]) == (404, "/problems/not-found"), path
        assert headers["Content-Type"] == "application/problem+json"


async def test_head_returns_the_headers_of_get_without_a_body(harness: Harness) -> None:
    async with harness.session.get(
        "/v1/drives/winter/totals", headers={"Accept-Encoding": "identity"}
    ) as got:
        length = got.headers["Content-Length"]
    async with harness.session.head(
        "/v1/drives/winter/totals", headers={"Accept-Encoding": "identity"}
    ) as head:
        assert (head.status, head.headers["Content-Length"]) == (200, length)
    for path in ("/v1/drives/winter/live", "/livez", "/docs"):
        async with harness.session.head(path) as head:
            assert head.status == 200


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        (PLEDGES, "POST", "Authorization, Idempotency-Key, Content-Type, Prefer, If-None-Match"),
        (
            f"/v1/pledges/{PLEDGE}",
            "GET",
            "Authorization, Idempotency-Key, Content-Type, Prefer, If-None-Match",
        ),
        ("/v1/drives/winter/totals", "GET", "If-None-Match, Last-Event-ID, Cache-Control"),
        ("/v1/drives/winter/live", "GET", "If-None-Match, Last-Event-ID, Cache-Control"),
    ],
)
async def test_preflight_of_any_origin_is_allowed_on_public_routes(
    harness: Harness, path: str, method: str, allowed: str
) -> None:
    asked = {"Origin": "https://any.example", "Access-Control-Request-Method": method,
             "Access-Control-Request-Headers": "authorization"}  # fmt: skip
    async with harness.session.options(path, headers=asked) as reply:
        assert reply.status == 204
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
        assert reply.headers["Access-Control-Allow-Headers"] == allowed
        assert method in reply.headers["Access-Control-Allow-Methods"]


async def test_preflight_of_other_routes_is_not_allowed(harness: Harness) -> None:
    asked = {"Origin": "https://any.example", "Access-Control-Request-Method": "POST"}
    for path in ("/v1/drives", "/v1/keys", "/v1/drives/winter/open"):
        async with harness.session.options(path, headers=asked) as reply:
            assert reply.status == 204
            assert "Access-Control-Allow-Origin" not in reply.headers


async def test_problems_carry_cors_headers(harness: Harness) -> None:
    status, headers, _ = await harness.post(PLEDGES, {}, Origin="https://any.example")
    assert status == 401
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Retry-After" in headers["Access-Control-Expose-Headers"]
    assert "Access-Control-Allow-Origin" not in (await harness.post("/v1/drives", {}))[1]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "",
                                  "application/json; charset=latin-1", "multipart/form-data"])  # fmt: skip
async def test_content_type_other_than_json_is_415(harness: Harness, kind: str) -> None:
    for path in (PLEDGES, "/v1/drives", "/v1/keys", f"/v1/pledges/{PLEDGE}/refunds"):
        async with harness.session.post(path, data=b"{}", headers={**ROOT, "Content-Type": kind}) as reply:
            problem = await reply.json(content_type=None)
            assert (reply.status, problem["type"]) == (415, "/problems/unsupported-media-type"), path


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"']
)
async def test_json_content_type_is_accepted_in_any_spelling(harness: Harness, kind: str) -> None:
    async with harness.session.post(PLEDGES, data=b"{}", headers={**ROOT, "Content-Type": kind}) as reply:
        assert reply.status == 201


async def test_post_without_a_body_needs_no_content_type(harness: Harness) -> None:
    harness.pledges.answers["POST /v1/drives/winter/open"] = (200, {})
    async with harness.session.post("/v1/drives/winter/open", headers=bearer(ADMIN)) as reply:
        assert reply.status == 200


async def chunks(size: int) -> Any:
    for _ in range(size // 1024):
        yield b" " * 1024


async def test_body_of_a_mebibyte_is_413_and_is_not_forwarded(harness: Harness) -> None:
    before = len(harness.pledges.received)
    for path in (PLEDGES, "/v1/drives", "/v1/keys"):
        for data in (b" " * 1_000_000, chunks(1_000_000), b" " * (64 * 1024 + 1), chunks(66 * 1024)):
            async with harness.session.post(path, data=data, headers=ROOT) as reply:
                problem = await reply.json(content_type=None)
                assert (reply.status, problem["type"]) == (413, "/problems/body-too-large")
    assert len(harness.pledges.received) == before


async def test_body_of_64_kib_is_accepted(harness: Harness) -> None:
    for data in (b" " * 64 * 1024, chunks(64 * 1024)):
        async with harness.session.post(PLEDGES, data=data, headers=ROOT) as reply:
            assert reply.status == 201
        assert len(harness.pledges.received[-1].body) == 64 * 1024


async def test_endless_body_is_refused_before_it_ends(harness: Harness) -> None:
    head = f"POST {PLEDGES} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nIdempotency-Key: k\r\n"
    declared = head + "Content-Type: application/json\r\nContent-Length: 999999999999\r\n\r\n"
    answer = await send_raw(harness, declared.encode() + b" " * 10_000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


async def test_webhook_of_a_mebibyte_is_forwarded_byte_for_byte(harness: Harness) -> None:
    body = b"\x00\xff" * (512 * 1024)
    headers = {"Stripe-Signature": "t=1,v1=x", "Content-Type": "application/json; charset=utf-8"}
    async with harness.session.post("/webhooks/stripe", data=body, headers=headers) as reply:
        assert reply.status == 200
    received = harness.payments.received[-1]
    assert received.body == body
    assert received.headers["stripe-signature"] == "t=1,v1=x"
    assert received.caller.scopes == set()
    async with harness.session.post("/webhooks/stripe", data=body + b"x", headers=headers) as reply:
        assert reply.status == 413


@pytest.mark.parametrize("name", ["Idempotency-Key", "Authorization", "Content-Type", "Origin"])
async def test_ambiguous_repeated_header_is_refused(harness: Harness, name: str) -> None:
    head = f"POST {PLEDGES} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n"
    head += f"{name}: a\r\n{name}: b\r\n"
    answer = await send_raw(harness, (head + "\r\n{}").encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"/problems/duplicate-header" in answer


@pytest.mark.parametrize("path", [PLEDGES, f"/v1/pledges/{PLEDGE}/refunds"])
async def test_pledges_and_refunds_require_an_idempotency_key(harness: Harness, path: str) -> None:
    status, _, problem = await harness.post(path, {}, **bearer(ADMIN))
    assert (status, problem["type"]) == (400, "/problems/idempotency-key-missing")


@pytest.mark.parametrize("path", [PLEDGES, "/v1/drives", "/v1/keys"])
async def test_idempotency_key_has_1_to_255_visible_characters(harness: Harness, path: str) -> None:
    for key in ("x" * 256, "a b", "é", ""):
        status, _, problem = await harness.post(path, {}, **{**bearer(ADMIN), "Idempotency-Key": key})
        assert (status, problem["type"]) == (400, "/problems/idempotency-key-malformed"), key


async def test_response_of_the_service_is_returned_unchanged(harness: Harness) -> None:
    harness.pledges.answers["POST /v1/drives/winter/pledges"] = (409, {"type": "/problems/drive-closed"})
    harness.pledges.headers = {"Retry-After": "7", "Server": "inside", "Set-Cookie": "a=b"}
    status, headers, problem = await harness.post(PLEDGES, {}, **ROOT)
    assert (status, problem) == (409, {"type": "/problems/drive-closed"})
    assert headers["Retry-After"] == "7"
    assert "Set-Cookie" not in headers
    assert "Server" not in headers


async def test_unavailable_service_is_503_with_retry_after(harness: Harness) -> None:
    def fail(received: Any) -> Any:
        raise RuntimeError("down")

    harness.pledges.answers["POST /v1/drives/winter/pledges"] = fail
    status, headers, problem = await harness.post(PLEDGES, {}, **ROOT)
    assert (status, problem["type"], headers["Retry-After"]) == (503, "/problems/overloaded", "2")


async def test_request_beyond_its_concurrency_limit_is_503_and_other_classes_are_served(
    tmp_path: Path,
) -> None:
    async with gateway(tmp_path, pledges_in_flight=2) as harness:
        harness.pledges.gate.clear()
        held = [asyncio.create_task(harness.post(PLEDGES, {}, **ROOT)) for _ in range(2)]
        await until(lambda: harness.pledges.lines().count(f"POST {PLEDGES}") == 2)
        status, headers, problem = await harness.post(PLEDGES, {}, **ROOT)
        assert (status, problem["type"], headers["Retry-After"]) == (503, "/problems/overloaded", "1")
        assert (await harness.get("/v1/drives/winter/totals"))[0] == 200
        assert (await harness.post("/webhooks/stripe", {}))[0] == 200
        harness.pledges.gate.set()
        assert [status for status, _, _ in await asyncio.gather(*held)] == [201, 201]
        assert (await harness.post(PLEDGES, {}, **ROOT))[0] == 201


async def test_leaderboards_and_logs_are_read_from_the_service_once_a_second(harness: Harness) -> None:
    harness.leaderboard.answers["GET /v1/drives/winter/leaderboards/creators"] = (
        200,
        {"data": [], "sequence": 4},
    )
    path = "/v1/drives/winter/leaderboards/creators?limit=3"
    answers = await asyncio.gather(*(harness.get(path) for _ in range(20)))
    assert {status for status, _, _ in answers} == {200}
    assert harness.leaderboard.lines() == ["GET /v1/drives/winter/leaderboards/creators"]
    assert harness.leaderboard.received[0].query == "limit=3"
    headers = answers[0][1]
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert (await harness.get("/v1/drives/nowhere/events"))[0] == 404


@pytest.mark.parametrize("path", ["/v1/drives/winter/leaderboards/creators", "/v1/drives/winter/events"])
async def test_leaderboards_and_logs_honour_if_none_match(harness: Harness, path: str) -> None:
    harness.leaderboard.answers[f"GET {path}"] = (200, {"data": [], "sequence": 4})
    _, headers, _ = await harness.get(path)
    etag = headers["ETag"]
    assert etag.startswith('W/"')
    for known in (etag, etag.removeprefix("W/"), "*", f'"x", {etag}'):
        status, again, body = await harness.get(path, **{"If-None-Match": known})
        assert (status, body, again["ETag"]) == (304, None, etag), known
        assert again["Cache-Control"] == headers["Cache-Control"]
        assert again["Access-Control-Allow-Origin"] == "*"
        async with harness.session.head(path, headers={"If-None-Match": known}) as reply:
            assert reply.status == 304
    for other in ('"x"', etag[3:-1], f'"{etag}"'):
        assert (await harness.get(path, **{"If-None-Match": other}))[0] == 200, other
    status, _, _ = await harness.get("/v1/drives/nowhere/events", **{"If-None-Match": "*"})
    assert status == 404  # `*` matches only an existing representation


async def test_leaderboard_keeps_its_etag_while_only_as_of_changes(harness: Harness) -> None:
    board = "/v1/drives/winter/leaderboards/creators"
    moments = iter(("2022-01-07T12:00:00.000Z", "2022-01-07T12:00:01.000Z"))
    harness.leaderboard.headers = {"ETag": 'W/"1.4.0"'}
    harness.leaderboard.answers[f"GET {board}"] = lambda _: (200, {"data": [], "as_of": next(moments)})
    _, first, _ = await harness.get(f"{board}?limit=1")
    assert first["ETag"] == 'W/"1.4.0"'
    assert (await harness.get(f"{board}?limit=2", **{"If-None-Match": first["ETag"]}))[0] == 304


async def test_only_the_gateway_can_send_a_drives_freshness_to_leaderboard(harness: Harness) -> None:
    """A replica of leaderboard knows the freshness of its own partitions only."""
    board = "/v1/drives/winter/leaderboards/creators"
    harness.leaderboard.answers[f"GET {board}"] = (200, {"data": []})
    await harness.get(f"{board}?n=1", **{"Ataa-As-Of": "2999-01-01T00:00:00.000Z"})
    assert "ataa-as-of" not in harness.leaderboard.received[-1].headers
    await harness.snapshot(7)

    async def sent_as_of() -> str | None:
        totals = (await harness.get("/v1/drives/winter/totals"))[2]
        await harness.get(f"{board}?n={len(harness.leaderboard.received)}")
        sent = harness.leaderboard.received[-1].headers.get("ataa-as-of")
        return sent if totals["sequence"] == 7 and sent == totals["as_of"] else None

    assert await until(sent_as_of)


async def test_health_routes_answer(harness: Harness) -> None:
    for path in ("/livez", "/readyz", "/startupz"):
        async with harness.session.get(path) as reply:
            assert reply.status == 200, path


async def test_unexpected_error_is_a_500_problem_without_a_traceback(harness: Harness) -> None:
    harness.pledges.answers["POST /internal/pledges"] = (
        200,
        {"data": {PLEDGE: {"pledge": {}, "partner": "default"}}},
    )
    async with harness.session.get(f"/v1/pledges/{PLEDGE}", headers=bearer(ADMIN)) as reply:
        text = await reply.text()
        assert reply.status == 500
    assert json.loads(text)["type"] == "/problems/internal-error"
    assert "Traceback" not in text
    assert "KeyError" not in text
