"""The proof holds only when the four books agree and each donation was counted once."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rehearsal.console import shortcomings
from rehearsal.donors import Tally
from rehearsal.freshness import Freshness
from rehearsal.installation import Installation
from rehearsal.proof import Auditor, Proof, Unreadable, difference, settle
from tests.rehearsal.fake_backend import INTERNAL, FakeBackend, Pledge

NAMES = ("sandbox", "ledger", "totals", "pledges")
cents = st.integers(-(10**9), 10**9).map(lambda count: Decimal(count).scaleb(-2))
book = st.dictionaries(st.sampled_from(["USD", "EUR", "SAR"]), cents)


@given(same=book)
def test_equal_books_have_no_difference(same: dict[str, Decimal]) -> None:
    assert not any(difference(dict.fromkeys(NAMES, same)).values())


@given(
    same=book,
    wrong=st.sampled_from(NAMES),
    cents_off=st.integers(1, 10**9),
    currency=st.sampled_from(["USD", "EUR"]),
)
def test_difference_of_one_book_is_found(
    same: dict[str, Decimal], wrong: str, cents_off: int, currency: str
) -> None:
    off_by = Decimal(cents_off).scaleb(-2)
    books = dict.fromkeys(NAMES, same)
    books[wrong] = same | {currency: same.get(currency, Decimal("0.00")) - off_by}

    assert difference(books)[currency] == off_by


def test_missing_currency_counts_as_zero() -> None:
    books = {"sandbox": {"USD": Decimal("5.00")}, "ledger": {}}
    assert difference(books) == {"USD": Decimal("5.00")}


@pytest.fixture
def installation(backend: FakeBackend, tmp_path: Path) -> Installation:
    """An installation whose services are all the fake backend."""
    port = int(backend.base.rpartition(":")[2])
    ports = dict.fromkeys(("pledges", "payments", "leaderboard"), port)
    (tmp_path / "ports.json").write_text(json.dumps(ports))
    (tmp_path / "secrets.json").write_text(json.dumps({"internal": INTERNAL}))
    return Installation(tmp_path, port, port, "sk_test_x", "whsec_x")


def donate(backend: FakeBackend, number: int, value: str) -> Pledge:
    pledge = Pledge(f"plg_{number}", {"amount": {"currency": "USD", "value": value}})
    backend.pledges[pledge.id] = pledge
    backend._capture(pledge, disputed=False)
    return pledge


async def ignore_progress(what: str) -> None:
    """Used where progress does not matter."""


async def test_proof_holds_when_books_agree_and_are_stable(
    backend: FakeBackend, installation: Installation, session: aiohttp.ClientSession
) -> None:
    freshness, tally = Freshness(), Tally()
    for number in range(250):
        donate(backend, number, "12.34")
        tally.paid[f"plg_{number}"] = 1_234
    backend.pledges["plg_3"].refunded = Decimal("2.34")
    tally.refunded_cents = 234
    freshness.note_frame(250, 1.0)

    proof = await settle(
        Auditor(installation, session, freshness), tally, freshness, ignore_progress, limit_s=5.0
    )

    assert proof.holds
    assert proof.drained
    assert shortcomings(proof) == []
    assert set(proof.books) == set(NAMES)
    assert proof.books["sandbox"] == {"USD": Decimal("12.34") * 250 - Decimal("2.34")}
    assert (proof.given, proof.counted) == (250, 250)


async def test_missing_cent_is_awaited_and_then_reported(
    backend: FakeBackend, installation: Installation, session: aiohttp.ClientSession
) -> None:
    freshness, tally = Freshness(), Tally()
    donate(backend, 1, "12.34")
    tally.paid["plg_1"] = 1_234
    freshness.note_frame(1, 1.0)
    backend.miscounted = Decimal("0.01")
    waited_for: list[str] = []

    async def waiting(what: str) -> None:
        waited_for.append(what)

    proof = await settle(Auditor(installation, session, freshness), tally, freshness, waiting, limit_s=1.5)

    assert not proof.holds
    assert not proof.drained
    assert proof.difference == {"USD": Decimal("0.01")}
    assert waited_for[0] == "the books to agree; difference: 0.01 USD"
    assert "The books differ by 0.01 USD." in shortcomings(proof)


async def test_unreadable_books_are_no_proof(
    backend: FakeBackend, installation: Installation, session: aiohttp.ClientSession
) -> None:
    (installation.directory / "ports.json").unlink()
    freshness = Freshness()
    auditor = Auditor(installation, session, freshness)

    with pytest.raises(Unreadable, match=r"ports\.json"):
        await auditor.read_books()
    proof = await settle(auditor, Tally(), freshness, ignore_progress, limit_s=0.0)
    assert not proof.holds
    assert shortcomings(proof)[0] == "The books could not be read."


def proof_with(**changes: object) -> Proof:
    books = {name: {"USD": Decimal("5.00")} for name in NAMES}
    usual: dict[str, object] = {
        "drained": True,
        "books": books,
        "difference": difference(books),
        "given": 1,
        "counted": 1,
        "lost": (),
        "counted_twice": (),
        "uncaptured": Decimal("0.00"),
        "read_error": None,
    }
    return Proof(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"lost": ("plg_1",)}, "1 paid donations were not counted: plg_1"),
        ({"counted_twice": ("plg_2",)}, "1 donations were counted twice: plg_2"),
        ({"uncaptured": Decimal("7.00")}, "Donors paid 7.00 USD that the sandbox did not capture."),
    ],
)
def test_lost_or_doubled_donation_breaks_the_proof_though_books_agree(
    changes: dict[str, object], line: str
) -> None:
    assert proof_with().holds
    assert not proof_with(**changes).holds
    assert line in shortcomings(proof_with(**changes))


async def test_shared_installation_is_read_as_the_difference_from_its_baseline(
    backend: FakeBackend, installation: Installation, session: aiohttp.ClientSession
) -> None:
    donate(backend, 1, "7.00")
    auditor = Auditor(replace(installation, shared=True), session, Freshness())
    await auditor.record_baseline()

    donate(backend, 2, "5.00")
    found = await auditor.read_books()

    assert dict(found.books) == {name: {"USD": Decimal("5.00")} for name in NAMES}
    assert found.captured == Decimal("5.00")


async def test_shared_installation_with_differing_books_is_refused(
    backend: FakeBackend, installation: Installation, session: aiohttp.ClientSession
) -> None:
    backend.miscounted = Decimal("0.01")
    donate(backend, 1, "7.00")
    auditor = Auditor(replace(installation, shared=True), session, Freshness())
    with pytest.raises(Unreadable, match="keep changing"):
        await auditor.record_baseline(within_s=0.0)
