"""The steps of an audit: each compares a bounded part and returns within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from backbone.clock import Clock
from backbone.database.columns import microseconds
from backbone.database.database import Database
from backbone.http.service_client import ServiceClient, post_internal
from services.payments.drive_lookup import KnownDrive
from services.payments.proof import compare
from services.payments.proof.compare import CountedPayment, Difference, Transit, transit
from services.payments.proof.figures import (
    OwnFigures,
    matched_sums,
    number_of_paid,
    paid_out_sums,
    paid_payments,
    payments_by_id,
)
from services.payments.proof.pools import PoolFigures, ahead, differing_pools, pools_of
from services.payments.proof.state import AuditState, Log

PAGE: Final = 2_000
"""Payments that one step compares."""
LAST: Final = "pay_" + "z" * 27
"""Above every id, whatever the database's collation."""
ROUNDS: Final = 3
"""How often payments in transit are looked at again."""
ROUND_S: Final = 1.0
COMMIT_MARGIN: Final = timedelta(seconds=30)
"""A payment's `changed_at` is from the beginning of a transaction, which ends within this time."""


class Audit:
    """Audits drives, one step at a time; writes nothing.

    Every step raises `ServiceUnavailable` where leaderboard does not answer; it can be repeated.
    """

    def __init__(
        self,
        database: Database,
        leaderboard: ServiceClient,
        secret: str,
        clock: Clock,
        outbox_empty: Callable[[], Awaitable[bool]],
        *,
        round_s: float = ROUND_S,
    ) -> None:
        self._database = database
        self._leaderboard = leaderboard
        self._secret = secret
        self._clock = clock
        self._outbox_empty = outbox_empty
        self._round_s = round_s

    async def begin(self, drive: KnownDrive) -> AuditState:
        """A new audit of a drive."""
        expected = await self._database.read_whole(lambda one: number_of_paid(one, drive.id))
        return AuditState(drive=drive.id, currency=drive.currency, as_of=self._clock.now(), expected=expected)

    async def step(self, state: AuditState) -> None:
        """Take the next step of an audit and note in `state` what it found."""
        match state.stage:
            case "payments":
                await self._compare_page(state)
            case "log":
                await self._verify_log(state)
            case "sums":
                await self._compare_sums(state)
            case "transit":
                await self._look_again(state)
            case "done":
                pass

    async def _compare_page(self, state: AuditState) -> None:
        read = partial(paid_payments, drive_id=state.drive, after=state.after, limit=PAGE)
        own = await self._database.read_whole(read)
        until = own[-1].payment if len(own) == PAGE else LAST
        counted = await self._counted_between(state.drive, state.after, until)
        of_page = {each.payment for each in own}
        extra = [each for each in counted if each not in of_page]
        missing = [each.payment for each in own if each.payment not in counted and each.has_money]
        if missing:  # counted for another drive, or not at all
            counted |= await self._counted(missing)
        for each in own:
            self._compare(state, each, counted.get(each.payment))
        await self._compare_extra(state, extra, counted)
        state.payments += len(own)
        state.after = until
        if until == LAST:
            state.stage = "log"

    async def _compare_extra(
        self, state: AuditState, extra: Sequence[str], counted: dict[str, CountedPayment]
    ) -> None:
        """Compare the payments that leaderboard counts for the drive and the page did not have."""
        own = await self._own(extra)
        for payment in extra:
            if payment in own:
                self._compare(state, own[payment], counted[payment])
            else:
                state.note(compare.unknown(counted[payment]))

    def _compare(self, state: AuditState, own: OwnFigures, counted: CountedPayment | None) -> None:
        """Compare one payment. Sums contain it once leaderboard has counted its present state."""
        if transit(own, counted) is not Transit.ARRIVED:
            for difference in compare.in_own_books(own):
                state.note(difference)
            state.note_in_transit(own.payment)
            return
        self._add(state, own, counted, compare.in_own_books(own))

    def _add(
        self,
        state: AuditState,
        own: OwnFigures,
        counted: CountedPayment | None,
        differences: Iterable[Difference] = (),
    ) -> None:
        for difference in differences:
            state.note(difference)
        if counted is not None:
            for difference in compare.with_leaderboard(own, counted):
                state.note(difference)
        if own.offline:
            return  # the sums are of processor money
        sums = state.of(own.currency)
        if own.drive == state.drive:
            sums.ledger += own.posted.processor
            sums.processor += own.by_facts.net
        if counted is not None and counted.drive_id == state.drive:
            if counted.counted:
                sums.totals += counted.net
            else:
                sums.held += counted.net

    async def _verify_log(self, state: AuditState) -> None:
        log = state.log
        position = {"epoch": log.epoch, "sequence": log.sequence, "hash": log.hash, "raised": log.raised}
        found = await self._ask("/internal/audit/log", {"drive": state.drive, **position})
        if not found["known"]:
            state.stage = "sums"
            return
        flaw = found["flaw"]
        state.log = Log(**found["position"], length=found["length"], verified=flaw is None)
        if flaw is not None:
            state.note(Difference(None, "log", {"reason": flaw}))
        if flaw is not None or found["is_end"]:
            state.stage = "sums"

    async def _compare_sums(self, state: AuditState) -> None:
        """Compare leaderboard's sums with its own payments, and those with its log."""
        await self._compare_matched(state)
        await self._compare_paid_out(state)
        await self._compare_pools(state)
        found = await self._ask("/internal/audit/sums", {"drive": state.drive})
        for each in found["sums"]:
            apart = abs(each["stored"] - each["recounted"])
            figures = {"totals": each["stored"], "leaderboard's payments": each["recounted"]}
            money = apart if each["currency"] is not None else 0
            state.note(Difference(None, each["name"], figures, each["currency"], money))
            if sign := _SIGNS.get(each["name"]):
                state.of(None).totals += sign * (each["stored"] - each["recounted"])
        for each in found["log"]:
            figures = {"leaderboard": each["counted"], "log": each["logged"]}
            apart = abs(each["counted"] - each["logged"])
            state.note(Difference(each["payment_id"], "net", figures, state.currency, apart))
        state.stage = "transit" if state.in_transit else "done"

    async def _compare_matched(self, state: AuditState) -> None:
        """Compare what matching pools gave with the ledger; both change in one transaction."""
        sums = await self._database.read_whole(lambda one: matched_sums(one, state.drive))
        for currency, (used, posted) in sorted(sums.items()):
            if used != posted:
                figures = {"matching pools": used, "ledger": posted}
                state.note(Difference(None, "matched", figures, currency, abs(used - posted)))

    async def _compare_paid_out(self, state: AuditState) -> None:
        """Compare what was paid out of each fund with the ledger; both change in one transaction."""
        sums = await self._database.read_whole(lambda one: paid_out_sums(one, state.drive))
        for (fund, currency), (paid, posted) in sorted(sums.items()):
            if paid != posted:
                figures = {"disbursements": paid, "ledger": posted}
                apart = abs(paid - posted)
                state.note(Difference(None, f"paid out of the {fund} fund", figures, currency, apart))

    async def _compare_pools(self, state: AuditState) -> None:
        """Compare what each pool gave with leaderboard's state of it; a state in transit is no difference."""

        async def read_own() -> dict[str, PoolFigures]:
            return await self._database.read_whole(lambda one: pools_of(one, state.drive))

        # In this order, as in `_look_again`.
        own = await read_own()
        outbox_empty = await self._outbox_empty()
        arrived = await self._ask("/internal/audit/arrived", {"drive": state.drive})
        rows = (await self._ask("/internal/audit/pools", {"drive": state.drive}))["rows"]
        counted = {pool: PoolFigures(version, used) for pool, version, used in rows}
        due = set(own) if outbox_empty and not arrived["behind"] else set()
        if changed := ahead(own, counted):
            newest = await read_own()
            own |= {pool: newest[pool] for pool in changed if pool in newest}
        for found in differing_pools(own, counted, due - changed):
            state.note(found)

    async def _look_again(self, state: AuditState) -> None:
        """Compare the payments in transit again; at the last round those that should have arrived differ."""
        if state.rounds:
            await asyncio.sleep(self._round_s)
        state.rounds += 1
        waiting, state.in_transit = state.in_transit[:PAGE], state.in_transit[PAGE:]
        # In this order: a state that was read had left the outbox and was counted before leaderboard is read.
        own = await self._own(waiting)
        outbox_empty = await self._outbox_empty()
        arrived = await self._ask("/internal/audit/arrived", {"drive": state.drive})
        counted = await self._counted(waiting)
        read_again = await self._own([one for one in waiting if _is_ahead(own.get(one), counted.get(one))])
        complete_to = (
            arrived["complete_to"] and datetime.fromisoformat(arrived["complete_to"]) - COMMIT_MARGIN
        )
        for payment, figures in own.items():
            is_due = (outbox_empty and not arrived["behind"]) or bool(
                complete_to and figures.changed_at < microseconds(complete_to)
            )
            theirs, newest = counted.get(payment), read_again.get(payment, figures)
            self._settle(state, newest, theirs, is_due=is_due or _is_ahead(newest, theirs))
        if not state.in_transit or state.rounds >= ROUNDS + len(state.in_transit) // PAGE:
            state.stage = "done"

    def _settle(
        self, state: AuditState, own: OwnFigures, counted: CountedPayment | None, *, is_due: bool
    ) -> None:
        """Add a payment that has arrived; one that is due and has not is a difference, others stay."""
        if transit(own, counted) is Transit.ARRIVED:
            self._add(state, own, counted)
        elif is_due:
            self._add(state, own, None, [compare.lost(own, counted)])
        else:
            state.in_transit.append(own.payment)

    async def _own(self, ids: Sequence[str]) -> dict[str, OwnFigures]:
        if not ids:
            return {}
        found = await self._database.read_whole(lambda one: payments_by_id(one, ids))
        return {each.payment: each for each in found}

    async def _counted_between(self, drive: str, after: str, until: str) -> dict[str, CountedPayment]:
        found: dict[str, CountedPayment] = {}
        following: str | None = after
        while following is not None:
            wanted = {"drive": drive, "after": following, "until": until}
            page = await self._ask("/internal/audit/payments", wanted)
            found |= {row[0]: CountedPayment(*row) for row in page["rows"]}
            following = page["next"]
        return found

    async def _counted(self, ids: Sequence[str]) -> dict[str, CountedPayment]:
        page = await self._ask("/internal/audit/payments", {"ids": ids})
        return {row[0]: CountedPayment(*row) for row in page["rows"]}

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:
        return await post_internal(self._leaderboard, self._secret, path, body)


_SIGNS: Final = {"captured": 1, "refunded": -1, "disputed": -1}


def _is_ahead(own: OwnFigures | None, counted: CountedPayment | None) -> bool:
    return own is not None and transit(own, counted) is Transit.AHEAD
