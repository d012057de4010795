"""A drive with zakat and one with the same gifts without: together its funds are what the other one has."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbone.contracts.pledges import Beneficiary
from services.payments.processor import Movement
from services.payments.settlement.record import record_movements
from services.payments.treasury.balances import Statement, read_drive_ledger, statements
from tests.payments.approval_api import ApprovalApi, open_api
from tests.payments.disbursements.test_disbursements import EXCEEDS, a_payment, approve, take_back
from tests.payments.harness import a_drive, a_pledge
from tests.payments.stripe_events import dispute, intent_succeeded, metadata, refund

UNITS = st.sampled_from([1, 99, 1_000, 2_500])
PICKED = st.integers(0, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("give"), UNITS, st.booleans(), st.booleans(), st.booleans()),
        st.tuples(st.just("give"), UNITS, st.booleans(), st.just(False), st.just(True)),
        st.tuples(st.just("tell"), PICKED),
        st.tuples(st.just("refund"), PICKED, UNITS, st.sampled_from(["pending", "succeeded", "failed"])),
        st.tuples(st.just("dispute"), PICKED, st.sampled_from(["needs_response", "won", "lost"])),
        st.tuples(st.just("charge"), PICKED, st.sampled_from([1, 30, -1])),
        st.tuples(
            st.just("pay_out"),
            st.sampled_from(["Relief", "Homes"]),
            st.sampled_from([1, 300, 700, 5_000]),
            st.sampled_from(["zakat", "general"]),
        ),
        st.tuples(st.just("reverse"), PICKED),
    ),
    max_size=16,
)
SHARES = [Beneficiary(name="Relief", share_bps=7_001), Beneficiary(name="Homes", share_bps=2_999)]
_number = itertools.count(1)


class Twins:
    """The drives `winter`, whose donors declare what they give, and `plain`, whose donors do not."""

    def __init__(self, api: ApprovalApi) -> None:
        self.api, self.books = api, api.books
        self.drives = [
            a_drive(slug=slug, partner="charity", beneficiaries=SHARES) for slug in ("funds", "plain")
        ]
        self.gifts: list[tuple[tuple[Any, str], tuple[Any, str]]] = []
        """Of each drive the pledge and the intent."""
        self.paid: list[list[str]] = []

    async def give(self, units: int, zakat: bool, held: bool, told: bool) -> None:
        number = next(_number)
        pair = []
        for place, drive in enumerate(self.drives):
            purpose = "zakat" if zakat and place == 0 else None
            pledge = a_pledge(drive, units + 7 if held else units, purpose=purpose)
            intent = f"pi_{number}_{place}"
            if told:
                await self.books.consume(pledge)
            await self.books.apply(
                [intent_succeeded(intent, units, metadata(None, pledge.pledge_id, drive.drive_id))]
            )
            pair.append((pledge, intent))
        self.gifts.append((pair[0], pair[1]))

    async def tell(self, picked: int) -> None:
        """The pledge of a gift becomes known."""
        for pledge, _ in self._gift(picked):
            await self.books.consume(pledge)

    async def refund(self, picked: int, units: int, status: str) -> None:
        for _, intent in self._gift(picked):
            event = refund("updated", f"re_{intent}_{units}", intent, units, status)
            await self.books.apply([event])

    async def dispute(self, picked: int, status: str) -> None:
        at = 1_700_000_000 + next(_number)
        for _, intent in self._gift(picked):
            await self.books.apply([dispute("updated", f"dp_{intent}", intent, 500, status, at=at)])

    async def charge(self, picked: int, fee: int) -> None:
        number, now = next(_number), self.books.clock.now()
        for place, (_, intent) in enumerate(self._gift(picked)):
            movement = Movement(
                f"txn_{number}_{place}", "charge", "ch_1", intent, 100, fee, "USD", None, now, now
            )
            async with self.books.database.transaction() as session:
                await record_movements(session, [movement], now)

    def _gift(self, picked: int) -> tuple[tuple[Any, str], ...]:
        return self.gifts[-1 - picked % len(self.gifts)] if self.gifts else ()

    async def pay_out(self, name: str, units: int, fund: str) -> None:
        """Pay from a fund what is in it; the twin, which has one fund, owes at least as much."""
        before = (await self.statements())[0]
        left = _left(before, fund)
        owed = next(each.units for each in before.owed if each.beneficiary == name)
        made = []
        for place, slug in enumerate(("funds", "plain")):
            body = a_payment(self.api, units, name) | ({"fund": fund} if place == 0 else {})
            reply = await self.api.ask("POST", f"/v1/drives/{slug}/disbursements", body)
            if place == 0 and units > min(left, owed):
                assert (reply.status, reply.json()["type"]) == EXCEEDS
                return
            assert reply.status == 201, reply.body
            made.append(reply.json()["id"])
            assert await approve(self.api, made[-1]) == (200, "approved")
        self.paid.append(made)

    async def reverse(self, picked: int) -> None:
        for disbursement in self.paid.pop(picked % len(self.paid)) if self.paid else ():
            assert await take_back(self.api, disbursement, "key_a") == (200, "reversal_requested")
            assert await take_back(self.api, disbursement, "key_b") == (200, "reversed")

    async def statements(self) -> list[Statement]:
        found = []
        for drive in self.drives:
            read = partial(read_drive_ledger, drive_id=drive.drive_id)
            found.append(statements(await self.books.database.read_whole(read), "USD")[0])
        return found

    async def check(self) -> None:
        """Fail unless both funds together are what the twin has, and each has what its gifts are."""
        own, twin = [await self.books.drive_balances(drive.drive_id) for drive in self.drives]
        together = Counter[str]()
        for account, units in own.items():
            together[account.removesuffix("_zakat")] += units
        assert {account: units for account, units in together.items() if units} == twin
        assert not [account for account in twin if account.endswith("_zakat")]
        with_zakat, plain = await self.statements()
        for line in ("gross", "refunds", "disputes", "raised", "held", "fees", "paid_out", "owed"):
            assert getattr(with_zakat, line) == getattr(plain, line), line
        sums = [0, 0, 0]
        for (pledge, _), _ in self.gifts:
            for row in await self.books.payments(pledge.pledge_id):
                if row.zakat and not row.held:
                    sums = [sums[0] + row.captured, sums[1] + row.refunded, sums[2] + row.disputed]
        zakat = with_zakat.zakat
        assert [zakat.gross, zakat.refunds, zakat.disputes] == sums
        assert (await self.books.drift()).get("USD", 0) == 0


def _left(statement: Statement, fund: str) -> int:
    """What may be paid from a fund, from the lines of a statement."""
    zakat = statement.zakat.raised - statement.zakat.fees - statement.zakat.paid_out
    whole = statement.raised - statement.fees - statement.paid_out
    return max(0, zakat if fund == "zakat" else whole - zakat)


async def live(store: str, folder: Path, steps: list[tuple[Any, ...]]) -> None:
    async with open_api(store, folder) as api:
        twins = Twins(api)
        await api.books.consume(*twins.drives)
        for name, *given_to in steps:
            await getattr(twins, name)(*given_to)
            await twins.check()
        for number in range(len(twins.gifts)):
            await twins.tell(number)
        await twins.check()


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_both_funds_together_are_what_one_fund_would_be(store: str) -> None:
    @settings(
        max_examples=30 if store == "sqlite" else 5,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(STEPS)
    def check(steps: list[tuple[Any, ...]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(live(store, Path(folder), steps))

    check()
