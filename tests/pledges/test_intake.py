"""Creating pledges: batches, idempotency keys, invalid requests among valid ones, on real SQLite."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from backbone.contracts.pledges import PledgeMade
from tests.pledges.harness import Harness, a_pledge, pledges_harness, usd


def problem(reply: Any) -> tuple[int, str]:
    """The status and the slug of a problem."""
    return reply.status, reply.json().get("type", "").removeprefix("/problems/")


async def test_created_pledge_has_all_fields_of_the_api(harness: Harness) -> None:
    drive = await harness.drive()
    creator = (await harness.post("/v1/drives/winter/creators", {"slug": "abo", "name": "Abo"})).json()["id"]
    reply = await harness.pledge(a_pledge("25.00", creator="abo"))
    assert reply.status == 201
    view = reply.json()
    assert set(view) == {
        "id", "drive", "creator", "amount", "purpose", "status", "checkout", "queue", "token", "created_at"
    }  # fmt: skip
    assert (view["drive"], view["creator"], view["amount"]) == (drive, creator, usd("25.00"))
    assert (view["status"], view["checkout"], view["queue"]) == ("open", None, None)
    again = await harness.pledge(a_pledge(creator=creator), drive=drive)
    assert again.json()["creator"] == creator


async def test_zakat_is_stored_where_the_drive_takes_it_and_sadaqah_anywhere(harness: Harness) -> None:
    await harness.drive(zakat_eligible=True)
    await harness.drive("spring")
    zakat = await harness.pledge(a_pledge(purpose="zakat"))
    assert (zakat.status, zakat.json()["purpose"]) == (201, "zakat")
    assert (await harness.pledge(a_pledge(purpose="sadaqah"), drive="spring")).json()["purpose"] == "sadaqah"
    assert (await harness.pledge(a_pledge())).json()["purpose"] is None
    pledge_id = zakat.json()["id"]
    found = await harness.post_internal("/internal/pledges", ids=[pledge_id])
    assert found[pledge_id]["pledge"]["purpose"] == "zakat"
    made = [event.purpose for event in await harness.announced() if isinstance(event, PledgeMade)]
    assert made == ["zakat", "sadaqah", None]
    before = (await harness.rows())["pledges"]
    refused = await harness.pledge(a_pledge(purpose="zakat"), drive="spring")
    assert (problem(refused), refused.json()["errors"][0]["pointer"]) == (
        (422, "invalid-request"),
        "/purpose",
    )
    for purpose in ("Zakat", "", "gift", 1, ["zakat"]):
        assert (await harness.pledge(a_pledge(purpose=purpose))).status == 422
    assert (await harness.rows())["pledges"] == before


async def test_announced_pledge_is_complete_and_has_no_personal_data(harness: Harness) -> None:
    await harness.drive()
    donor = {"name": "Zainab", "email": "z@example.org", "locale": "ar"}
    source = {"platform": "twitch", "campaign": "c", "referrer": "https://secret.example"}
    reply = await harness.pledge(a_pledge(donor=donor, message="peace", source=source))
    made = [event for event in await harness.announced() if isinstance(event, PledgeMade)]
    assert [event.pledge_id for event in made] == [reply.json()["id"]]
    assert made[0].version == 1
    assert made[0].locale == "ar"
    raw = made[0].to_bytes()
    for word in (b"Zainab", b"z@example.org", b"peace", b"secret", reply.json()["token"].encode()):
        assert word not in raw


@pytest.mark.parametrize(
    ("donor", "anonymous"),
    [
        ({"name": "Zainab"}, False),
        ({"name": "Zainab", "anonymous": True}, True),
        ({"name": " "}, True),
        ({"email": "z@example.org"}, True),
        (None, True),
    ],
)
async def test_announced_pledge_states_whether_its_donor_is_named(
    harness: Harness, donor: dict[str, Any] | None, anonymous: bool
) -> None:
    await harness.drive()
    assert (await harness.pledge(a_pledge(donor=donor))).status == 201
    made = [event for event in await harness.announced() if isinstance(event, PledgeMade)]
    assert [event.anonymous for event in made] == [anonymous]


async def test_same_key_and_body_return_the_same_pledge(harness: Harness) -> None:
    await harness.drive()
    first = await harness.pledge(key="k")
    again = await harness.pledge(key="k")
    assert again.status == 201
    assert again.body == first.body
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (await harness.rows())["pledges"] == 1


async def test_idempotency_key_survives_a_restart_and_the_close_of_the_drive(tmp_path: Path) -> None:
    async with pledges_harness(tmp_path) as harness:
        await harness.drive()
        first = await harness.pledge(key="k")
        await harness.post("/v1/drives/winter/close")
    async with pledges_harness(tmp_path) as harness:
        again = await harness.pledge(key="k")
        assert again.body == first.body
        assert again.headers["idempotency-replayed"] == "true"
        assert problem(await harness.pledge(key="other")) == (409, "drive-closed")


async def test_idempotency_key_with_another_body_or_drive_is_refused(harness: Harness) -> None:
    await harness.drive()
    await harness.drive("summer")
    await harness.pledge(key="k")
    assert problem(await harness.pledge(a_pledge("26.00"), key="k")) == (422, "idempotency-key-reused")
    assert problem(await harness.pledge(key="k", drive="summer")) == (422, "idempotency-key-reused")
    assert (await harness.rows())["pledges"] == 1


async def test_idempotency_keys_are_scoped_to_a_partner(harness: Harness) -> None:
    await harness.drive()
    ours = await harness.pledge(key="k", partner="a")
    theirs = await harness.pledge(key="k", partner="b")
    assert ours.json()["id"] != theirs.json()["id"]


async def test_concurrent_requests_with_one_key_make_one_pledge(harness: Harness) -> None:
    await harness.drive()
    replies = await asyncio.gather(
        *(harness.pledge(key="k") for _ in range(20)),
        *(harness.pledge(a_pledge("9.00"), key="k") for _ in range(5)),
    )
    assert len({reply.body for reply in replies[:20]}) == 1
    assert sorted("idempotency-replayed" in reply.headers for reply in replies[:20]) == [False] + [True] * 19
    assert {problem(reply) for reply in replies[20:]} == {(422, "idempotency-key-reused")}
    assert (await harness.rows())["pledges"] == 1


async def test_refused_request_does_not_use_up_its_key(harness: Harness) -> None:
    await harness.drive()
    bad, good = await asyncio.gather(
        harness.pledge(a_pledge(creator="nobody"), key="k"), harness.pledge(a_pledge(), key="k")
    )
    assert problem(bad) == (422, "invalid-request")
    assert good.status == 201


BAD_BODIES = [
    json.dumps(a_pledge(message="a\x00b")).encode(),
    json.dumps(a_pledge(message="\ud800")).encode(),
    b'{"amount": {"currency": "USD", "value": "25.00"}, "donor": {"name": "\xed\xa0\x80"}}',
    json.dumps(a_pledge(donor={"name": "a\udfffb"})).encode(),
    json.dumps(a_pledge(creator="a\x00")).encode(),
    json.dumps(a_pledge(donor={"email": "a\x00@example.org"})).encode(),
    json.dumps(a_pledge(creator="nobody")).encode(),
    json.dumps(a_pledge("1000000.00")).encode(),
    json.dumps({"amount": {"currency": "EUR", "value": "25.00"}}).encode(),
]


async def test_invalid_requests_in_a_batch_fail_alone(harness: Harness) -> None:
    await harness.drive()
    good = [harness.pledge(a_pledge(donor={"email": f"d{n}@example.org"}), key=f"g{n}") for n in range(50)]
    bad = [harness.pledge(body, key=f"b{n}") for n, body in enumerate(BAD_BODIES)]
    mixed = [call for pair in zip(good[: len(bad)], bad, strict=True) for call in pair] + good[len(bad) :]
    statuses = [reply.status for reply in await asyncio.gather(*mixed)]
    raw_surrogate = 1  # bytes that are not UTF-8 are not JSON
    assert statuses.count(201) == 50
    assert statuses.count(422) == len(bad) - raw_surrogate
    assert statuses.count(400) == raw_surrogate
    rows = await harness.rows()
    assert (rows["pledges"], rows["idempotency"], rows["words"], rows["donors"]) == (50, 50, 50, 50)


async def test_lone_surrogate_is_422_and_malformed_json_is_400(harness: Harness) -> None:
    await harness.drive()
    before = await harness.rows()
    for text in ('"\\ud800"', '"\\udc00\\ud800"'):
        body = b'{"amount": {"currency": "USD", "value": "25.00"}, "message": %s}' % text.encode()
        reply = await harness.pledge(body)
        assert problem(reply) == (422, "invalid-request")
        assert reply.json()["errors"][0]["pointer"] == "/message"
    for body in (b"", b"{", b"\xff", b"nul", b"[" * 30_000, b'{"amount": NaN}', b'{"a":1}{"b":2}'):
        assert problem(await harness.pledge(body)) == (400, "malformed-json")
    pair = await harness.pledge(
        b'{"amount": {"currency": "USD", "value": "25.00"}, "message": "\\ud83c\\udf89"}'
    )
    assert pair.status == 201
    assert (await harness.rows())["pledges"] == before["pledges"] + 1


@pytest.mark.parametrize(
    ("state", "kind"), [("draft", "drive-closed"), ("closed", "drive-closed"), ("paused", "drive-paused")]
)
async def test_drive_that_is_not_live_refuses_pledges(harness: Harness, state: str, kind: str) -> None:
    await harness.drive(state=state)
    before = await harness.rows()
    assert problem(await harness.pledge(a_pledge(donor={"email": "a@example.org"}))) == (409, kind)
    assert await harness.rows() == before


@pytest.mark.parametrize("drive", ["nobody", "drv_01arz3ndektsv4rrffq69g5fav", "a%00b", "a\x00b", "x" * 100])
async def test_pledge_to_an_unknown_drive_is_404(harness: Harness, drive: str) -> None:
    assert problem(await harness.pledge(drive=drive)) == (404, "not-found")
    assert problem(await harness.get(f"/v1/drives/{drive}")) == (404, "not-found")
    assert problem(await harness.post(f"/v1/drives/{drive}/open")) == (404, "not-found")


@pytest.mark.parametrize(
    ("currency", "value", "status"),
    [
        ("USD", "999999.99", 201), ("USD", "1000000.00", 422), ("USD", "25", 422), ("USD", "25.000", 422),
        ("JPY", "99999999", 201), ("JPY", "100000000", 422), ("JPY", "25.00", 422),
        ("KWD", "5.120", 201), ("KWD", "5.124", 422), ("KWD", "99999.990", 201), ("KWD", "5.12", 422),
        ("UGX", "999999", 201), ("UGX", "1000000", 422), ("UGX", "25.00", 422), ("ISK", "5", 201),
    ],
)  # fmt: skip
async def test_amounts_are_checked_by_the_decimals_and_cap_of_the_currency(
    harness: Harness, currency: str, value: str, status: int
) -> None:
    goal = {"USD": "100.00", "JPY": "100", "KWD": "100.000", "UGX": "100", "ISK": "100"}[currency]
    await harness.drive(currency=currency, goal={"currency": currency, "value": goal})
    reply = await harness.pledge({"amount": {"currency": currency, "value": value}})
    assert reply.status == status
    assert (await harness.rows())["pledges"] == (status == 201)


async def test_pledge_requires_scope_and_mode(harness: Harness) -> None:
    await harness.drive()
    await harness.drive("trial", test=True)
    unsigned = {"content-type": "application/json", "idempotency-key": "k", "ataa-caller": ""}
    assert problem(await harness.pledge(headers=unsigned)) == (401, "unauthorized")
    assert problem(await harness.pledge(scopes=("refunds",))) == (403, "forbidden")
    assert problem(await harness.pledge(scopes=("pledges",), mode="test")) == (403, "forbidden")
    assert (await harness.pledge(scopes=("pledges",), mode="test", drive="trial")).status == 201
    assert (await harness.pledge(scopes=(), publishable=True)).status == 201
    assert problem(await harness.post("/v1/drives/winter/pledges", a_pledge())) == (
        400,
        "idempotency-key-missing",
    )
    assert problem(await harness.pledge(key="a b")) == (400, "idempotency-key-malformed")
    assert problem(await harness.pledge(headers={"content-type": "text/plain"})) == (
        415,
        "unsupported-media-type",
    )
    assert problem(await harness.pledge(b" " * 70_000)) == (413, "body-too-large")


async def test_donor_is_recognised_by_address_and_new_without_one(harness: Harness) -> None:
    await harness.drive()
    for donor in ({"email": "A@x.org"}, {"email": "a@X.org"}, {"email": "b@x.org"}, {}, {}):
        assert (await harness.pledge(a_pledge(donor=donor))).status == 201
    assert (await harness.pledge(a_pledge(donor={"email": "a@x.org"}), partner="other")).status == 201
    donors = [event.donor_id for event in await harness.announced() if isinstance(event, PledgeMade)]
    assert donors[0] == donors[1]
    assert len(set(donors)) == 5
    at_once = await asyncio.gather(*(harness.pledge(a_pledge(donor={"email": "n@x.org"})) for _ in range(9)))
    assert {reply.status for reply in at_once} == {201}
    assert (await harness.rows())["donors"] == 4


async def test_null_field_equals_a_missing_field(harness: Harness) -> None:
    await harness.drive()
    names = ("creator", "donor", "message", "source", "reference", "return_url")
    assert (await harness.pledge(a_pledge() | dict.fromkeys(names))).status == 201
    donor = {"name": None, "email": None, "locale": "AR-sa"}
    assert (await harness.pledge(a_pledge(donor=donor))).status == 201


async def test_name_and_message_are_shown_independently(harness: Harness) -> None:
    await harness.drive()
    bodies: dict[str, tuple[dict[str, Any], str | None, str | None]] = {
        "plain": ({"donor": {"name": "Sara"}, "message": "peace"}, "Sara", "peace"),
        "anonymous": ({"donor": {"name": "Sara", "anonymous": True}, "message": "peace"}, None, "peace"),
        "link in message": ({"donor": {"name": "Sara"}, "message": "see evil.com"}, "Sara", None),
        "link in name": ({"donor": {"name": "evil.com"}, "message": "peace"}, None, "peace"),
        "full stop": ({"donor": {"name": "Mr.Beast"}}, "Mr.Beast", None),
        "bidi": ({"donor": {"name": "S\u202eara"}, "message": "peace\u200f"}, None, "peace"),
        "two lines": ({"message": "peace\nfor all"}, None, "peace for all"),
        "unseen": ({"donor": {"name": "\u3164\u200b"}, "message": "\u2800"}, None, None),
        "silent": ({}, None, None),
        "decomposed": ({"donor": {"name": "Jose\u0301"}}, "José", None),
    }
    pledges = {
        kind: (await harness.pledge(a_pledge(**body))).json()["id"] for kind, (body, *_) in bodies.items()
    }
    shown = await harness.post_internal("/internal/words", ids=[*pledges.values(), "plg_unknown"])
    assert shown == {
        pledges[kind]: {"name": name, "message": message, "version": 0}
        for kind, (_, name, message) in bodies.items()
    }


async def test_receipt_contains_only_a_displayable_name(harness: Harness) -> None:
    await harness.drive()
    greeted = {"Mr.Beast": "Mr.Beast", "سارة\u200f": "سارة", "evil.com": None, "\u200b": None}
    for name, expected in greeted.items():
        body = a_pledge(donor={"name": name, "email": "a@x.org", "anonymous": True}, message="see evil.com")
        pledge = (await harness.pledge(body)).json()["id"]
        receipt = (await harness.post_internal("/internal/receipts", ids=[pledge]))[pledge]
        assert (receipt["name"], receipt["email"]) == (expected, "a@x.org")


async def test_stored_reply_contains_no_token(harness: Harness) -> None:
    await harness.drive()
    reply = await harness.pledge(key="k")
    token = reply.json()["token"].encode()
    assert all(token not in path.read_bytes() for path in sorted(harness.folder.glob("pledges.db*")))
    assert (await harness.pledge(key="k")).json()["token"] == reply.json()["token"]


async def test_minimum_applies_to_donors_and_not_to_partners_servers(tmp_path: Path) -> None:
    async with pledges_harness(tmp_path, minimum_amount="2.00 USD, 1.000 KWD") as harness:
        await harness.drive()
        before = (await harness.rows())["pledges"]
        refused = await harness.pledge(a_pledge("1.99"), scopes=(), publishable=True)
        assert problem(refused) == (422, "amount-too-small")
        assert refused.json()["errors"] == [{"pointer": "/amount/value", "detail": "at least 2.00 USD"}]
        assert (await harness.rows())["pledges"] == before
        assert (await harness.pledge(a_pledge("2.00"), scopes=(), publishable=True)).status == 201
        assert (await harness.pledge(a_pledge("1.99"))).status == 201


async def test_client_is_announced_as_the_gateway_names_it(harness: Harness) -> None:
    await harness.drive()
    for header in ({"ataa-client": "abcdefgh_-1234"}, {"ataa-client": "no client"}, {}):
        await harness.pledge(a_pledge(), headers=header)
    made = [event.client for event in await harness.announced() if isinstance(event, PledgeMade)]
    assert made == ["abcdefgh_-1234", None, None]
