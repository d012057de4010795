"""The operators' command on a running system."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.embedded_system import ROOT, EmbeddedSystem
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass
class Ended:
    """A command that has ended."""

    status: int
    out: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


async def ataa(system: EmbeddedSystem | None, *arguments: str, **settings: str) -> Ended:
    """Run `python -m ataa` with the settings of a system's operator: its data directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    own = {"ATAA_DATA_DIR": str(system.folder / "data")} if system else {}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ataa", *arguments),
        cwd=ROOT,
        env={**kept, **own, "COLUMNS": "200", "NO_COLOR": "1", **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), errors.decode())


def change(system: EmbeddedSystem, service: str, statement: str, *values: object) -> None:
    """Change a database behind the service's back."""
    with closing(sqlite3.connect(system.folder / "data" / f"{service}.db", timeout=10)) as database, database:
        assert database.execute(statement, values).rowcount == 1


async def test_audit_finds_nothing_while_donations_flow_and_a_planted_difference(
    system: EmbeddedSystem,
) -> None:
    drive = await system.open_drive("audited")
    first = await system.donate("audited")
    await system.wait_for_raised("audited", "25.00")

    async def give() -> None:
        await asyncio.gather(*(system.donate("audited", "10.00") for _ in range(8)))

    giving = asyncio.create_task(give())
    while not giving.done():
        found = await ataa(system, "audit", "audited", "--json")
        assert found.status == 0, found.out + found.errors
    await giving
    await system.wait_for_raised("audited", "105.00")

    found = await ataa(system, "audit", "audited", "--processor")
    assert found.status == 0, found.out + found.errors
    assert "No difference." in found.out
    assert "105.00 USD" in found.out

    payments = sqlite3.connect(system.folder / "data" / "payments.db")
    with closing(payments):
        ((payment, intent),) = payments.execute(
            "SELECT id, intent FROM payments WHERE pledge_id = ?", (first["id"],)
        )
    more = "UPDATE payments SET captured = captured + ? WHERE {} = ?"
    change(system, "leaderboard", more.format("payment_id"), 1, payment)
    found = await ataa(system, "audit", drive["id"])
    change(system, "leaderboard", more.format("payment_id"), -1, payment)
    assert found.status == 1
    assert f"{payment} captured" in " ".join(found.out.split())
    assert "payments: 25.00 USD, leaderboard: 25.01 USD" in found.out

    fact = "UPDATE facts SET units = units + ? WHERE id = ?"
    change(system, "payments", fact, 1, intent)
    found = await ataa(system, "audit", "audited", "--json", "--processor")
    change(system, "payments", fact, -1, intent)
    assert found.status == 1
    assert {one["payment"] for one in found.json["differences"]} == {payment}
    assert {one["what"] for one in found.json["differences"]} == {"captured", "processor"}

    assert (await ataa(system, "audit", "audited")).status == 0
    reply = await system.request("GET", "/v1/drives/audited/audit")
    assert reply.status == 200
    assert (reply.body["difference"]["value"], reply.body["differences"]) == ("0.00", 0)


async def test_what_cannot_be_asked_exits_with_two_and_one_line(
    system: EmbeddedSystem, tmp_path: Path
) -> None:
    unknown = await ataa(system, "audit", "no-such-drive")
    assert (unknown.status, unknown.errors) == (2, "ataa: No such drive.\n")
    nowhere = await ataa(None, "audit", "winter", ATAA_DATA_DIR=str(tmp_path))
    assert nowhere.status == 2
    assert nowhere.errors.startswith(f"ataa: Nothing runs in {tmp_path}.")
    secret = {"ATAA_INTERNAL_SECRET": "x", "ATAA_URL_PAYMENTS": "http://127.0.0.1:9"}
    away = await ataa(None, "audit", "winter", **secret)
    assert (away.status, away.errors[:50]) == (2, "ataa: payments does not answer at http://127.0.0.1")
    assert away.errors.count("\n") == 1
    assert (await ataa(system, "audit")).status == 2


async def test_dead_letters_of_all_groups_are_listed(system: EmbeddedSystem) -> None:
    found = await ataa(system, "dead-letters", "list", "--json")
    assert (found.status, found.json) == (0, []), found.errors
    assert (await ataa(system, "dead-letters", "list")).out == "No dead letters.\n"
    unknown = await ataa(system, "dead-letters", "show", "evt_1")
    assert (unknown.status, unknown.errors) == (2, "ataa: No such dead letter.\n")
    assert (await ataa(system, "dead-letters", "replay")).status == 2
    assert (await ataa(system, "dead-letters", "replay", "--all")).out == "No dead letters to replay.\n"


async def test_refunded_gift_is_traced_from_the_pledge_to_the_receipt_without_donors_texts(
    system: EmbeddedSystem,
) -> None:
    await system.open_drive("traced")
    donor = {"name": "Secret Name", "email": "secret@example.org"}
    pledge = await system.donate("traced", donor=donor, message="Secret message", creator="star")
    await system.wait_for_raised("traced", "25.00")
    amount = {"amount": {"currency": "USD", "value": "5.00"}, "reason": "Secret reason"}
    refunded = await system.admin("POST", f"/v1/pledges/{pledge['id']}/refunds", amount)
    assert refunded.status == 201, refunded.body
    await system.wait_for_raised("traced", "20.00")

    async def told() -> list[dict[str, str]] | None:
        found = await ataa(system, "trace", pledge["id"], "--json")
        assert found.status == 0, found.errors
        story: list[dict[str, str]] = found.json
        is_whole = any("receipt" in one["text"] for one in story) and "partly_refunded" in found.out
        return story if is_whole else None

    story = await until(told)
    expected = [
        ("pledges", "pledged 25.00 USD to drive drv_"),
        ("payments", "the pledge's payment of its own: pay_"),
        ("payments", "checkout attempt 1 of pay_"),
        ("payments", "checkout attempt 1 ended: opened as cs_"),
        ("payments", "webhook evt_"),
        ("payments", "fact recorded: capture pi_"),
        ("payments", "posting "),
        ("leaderboard", "donation.counted 25.00 USD, raised 25.00 USD after it"),
        ("payments", f"refund {refunded.body['id']} of 5.00 USD was asked for here"),
        ("payments", "fact recorded: refund re_"),
        ("leaderboard", "donation.refunded 5.00 USD, raised 20.00 USD after it"),
        ("pledges", "the pledge is partly_refunded now"),
        ("leaderboard", "leaderboard counts 20.00 USD of payment"),
    ]
    position = 0
    for service, text in expected:
        places = [n for n, one in enumerate(story) if one["service"] == service and text in one["text"]]
        after = [n for n in places if n >= position]
        assert after, (service, text, story)
        position = after[0]
    shown = await ataa(system, "trace", pledge["id"])
    assert "secret" not in (shown.out + json.dumps(story)).lower()
    assert f"payment_changed version 2 of {story[1]['text'].split(': ')[1].split(',')[0]}" in shown.out
    unknown = await ataa(system, "trace", "plg_unknown")
    assert (unknown.status, unknown.errors) == (2, "ataa: No such pledge.\n")


async def test_rebuilding_finds_repairs_and_publishes_sums(system: EmbeddedSystem) -> None:
    drive = await system.open_drive("rebuilt")
    await system.donate("rebuilt", creator="star")
    await system.wait_for_raised("rebuilt", "25.00")
    equal = await ataa(system, "rebuild", "leaderboard", "rebuilt")
    assert (equal.status, equal.out) == (0, f"{drive['id']}: equal\n"), equal.errors
    log = (await system.request("GET", "/v1/drives/rebuilt/events")).body

    more = "UPDATE drives SET captured = captured + 100 WHERE drive_id = ?"
    change(system, "leaderboard", more, drive["id"])
    found = await ataa(system, "rebuild", "leaderboard", "rebuilt")
    assert found.status == 1
    assert "captured is stored as 26.00 USD, built again it is 25.00 USD" in found.out
    written = await ataa(system, "rebuild", "leaderboard", "rebuilt", "--write")
    assert (written.status, "replaced" in written.out) == (0, True), written.out + written.errors
    assert (await ataa(system, "rebuild", "leaderboard", "rebuilt")).status == 0
    await system.wait_for_raised("rebuilt", "25.00")
    assert (await system.request("GET", "/v1/drives/rebuilt/events")).body == log
    await system.donate("rebuilt", "10.00", creator="star")
    await system.wait_for_raised("rebuilt", "35.00")
    assert (await ataa(system, "audit", "rebuilt")).status == 0
    change(system, "leaderboard", "UPDATE drives SET head_hash = 'x' WHERE drive_id = ?", drive["id"])
    wrong = await ataa(system, "rebuild", "leaderboard", "rebuilt", "--write")
    assert wrong.status == 1
    assert "is the last, and its drive has another hash of it" in wrong.out
    assert "nothing was written" in wrong.out
    unknown = await ataa(system, "rebuild", "leaderboard", "no-such-drive")
    assert (unknown.status, unknown.errors) == (2, "ataa: No such drive.\n")
