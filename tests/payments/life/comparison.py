"""What must hold after every step."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from hypothesis.stateful import invariant
from sqlalchemy import select

from backbone.contracts import Event, PaymentChanged, decode
from backbone.money import Money
from services.payments.matching.tables import POOLS
from services.payments.proof.compare import in_own_books
from services.payments.proof.figures import paid_payments
from services.payments.tables import MESSAGING_TABLES, PAYMENTS, POSTINGS, QUARANTINED, WEBHOOKS
from services.payments.treasury.balances import read_drive_ledger, statements
from tests.payments.life.model import (
    PAID,
    SHARES,
    worth,
)
from tests.payments.life.model import (
    Account as ModelAccount,
)
from tests.payments.life.process import Process


class Compared(Process):
    """Payments, ledger, events and pools compared with the model."""

    # What must always hold

    @invariant()
    def everything_agrees(self) -> None:
        if hasattr(self, "database"):
            self.run(self._compare())

    async def _compare(self) -> None:
        outbox = MESSAGING_TABLES.outbox
        async with self.database.reading() as session:
            payments = (await session.execute(select(PAYMENTS))).all()
            postings = (await session.execute(select(POSTINGS).order_by(POSTINGS.c.number))).all()
            pools = {row.id: row for row in await session.execute(select(POOLS))}
            written = (await session.execute(select(outbox).order_by(outbox.c.number))).all()
            quarantined = select(WEBHOOKS.c.reason).where(WEBHOOKS.c.state == QUARANTINED)
            assert (await session.execute(quarantined)).all() == []
        self._compare_payments(payments)
        self._compare_events(payments, [event for row in written if (event := decode(row.name, row.value))])
        self._compare_ledger([tuple(row) for row in postings], postings)
        for name, pool in zip(self.pools, self.life.pools, strict=True):
            assert pools[name].used == pool.used <= pool.cap

    def _compare_payments(self, payments: list[Any]) -> None:
        found = {
            row.intent: (
                row.status, row.held_reason, (row.captured, row.refunded, row.disputed), row.paid_currency,
                row.drive_id, row.zakat,
            )
            for row in payments
            if row.captured and not row.offline
        }  # fmt: skip
        assert found == {intent: self._expected(intent) for intent in self.life.captures}
        assert all(row.held is (row.held_reason is not None) for row in payments)

    def _expected(self, intent: str) -> tuple[Any, ...]:
        life, drive = self.life, self.life.drive(intent)
        assert drive is not None
        return (
            life.status(intent), life.held(intent), life.amounts(intent), life.captures[intent].currency,
            self.drives[drive].drive_id, life.fund(intent) == "zakat",
        )  # fmt: skip

    def _compare_events(self, payments: list[Any], events: list[Event]) -> None:
        newest: dict[str, PaymentChanged] = {}
        for event in events:
            if isinstance(event, PaymentChanged):
                known = newest.get(event.payment_id)
                assert event.version == (1 if known is None else known.version + 1)
                newest[event.payment_id] = event
        for row in payments:
            if not row.version:
                assert row.id not in newest and not row.captured
                continue
            event = newest[row.id]
            amounts = (event.captured.minor_units, event.refunded.minor_units, event.disputed.minor_units)
            assert amounts == (row.captured, row.refunded, row.disputed)
            self._compare_reporting(row, event)
            assert (event.version, event.status, event.held) == (row.version, row.status, row.held)
            assert (event.drive_id, event.pledge_id) == (row.drive_id, row.pledge_id)

    def _compare_reporting(self, row: Any, event: PaymentChanged) -> None:
        """What is announced in the drive's currency is the rounded value of three nets."""
        rate = self.life.rates.get(row.intent)
        sums = (event.reporting_captured, event.reporting_refunded, event.reporting_disputed)
        assert event.rate == rate
        if rate is None:
            assert sums == (None, None, None)
            return
        gross, kept = worth(row.captured, rate), worth(row.captured - row.refunded, rate)
        net = worth(row.captured - row.refunded - row.disputed, rate)
        expected = (gross, gross - kept, kept - net)
        assert sums == tuple(Money(units, "USD") for units in expected)

    def _compare_ledger(self, postings: list[Any], rows: Any) -> None:
        assert postings[: len(self.postings)] == self.postings, "a posting was updated or deleted"
        self.postings = postings
        places = {each.drive_id: n for n, each in enumerate(self.drives)}
        found: Counter[ModelAccount] = Counter()
        for row in rows:
            assert row.units > 0
            where = places.get(row.drive_id, -1)
            found[where, row.currency, row.debit] += row.units
            found[where, row.currency, row.credit] -= row.units
        assert {account: units for account, units in found.items() if units} == self.life.balances()

    def statements_agree(self) -> None:
        """The statement of each drive adds up to the model's money."""
        for place, drive in enumerate(self.drives):
            read = partial(read_drive_ledger, drive_id=drive.drive_id)
            found = self.run(self.database.read_whole(read))
            audited = partial(paid_payments, drive_id=drive.drive_id, after="", limit=1_000)
            figures = self.run(self.database.read_whole(audited))
            assert [one for each in figures for one in in_own_books(each)] == []
            own = statements(found, "USD")[0]
            nets = self.life.nets().values()
            net = sum(left for where, left in nets if where == place and left is not None)
            gifts = sum(
                each.units
                for each in self.life.offline
                if each.drive == place and each.status in ("approved", "reversal_requested")
            )
            matched = sum(pool.used for pool in self.life.pools if pool.drive == place)
            assert (own.raised, own.matched, own.offline) == (net + gifts + matched, matched, gifts)
            zakat = sum(
                left
                for intent, (where, left) in self.life.nets().items()
                if where == place and left is not None and self.life.fund(intent) == "zakat"
            )
            whole = sum(self.life.net(place, fund) for fund in ("general", "zakat"))
            paid = sum(o.units for o in self.life.disbursed if o.drive == place and o.status in PAID)
            left = min(self.life.left_in(place, "zakat"), max(0, max(0, whole) - paid))
            assert (own.zakat.raised, own.zakat.owed) == (zakat, left)
            owed = {each.beneficiary: each.units for each in own.owed}
            assert owed == {name: self.life.owed(place, name) for name in SHARES}
