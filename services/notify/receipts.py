"""The worker that sends receipts: a few a second, each donation once, so that giving comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import tzinfo
from email.headerregistry import Address
from typing import Any, Final

import structlog
from prometheus_client import Counter
from sqlalchemy import Row, bindparam, select, update

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from backbone.money import Money
from services.notify.domain import ReceiptStatus, next_try_at
from services.notify.emails import Donation, Recipient, build_receipt
from services.notify.tables import RECEIPTS
from services.notify.transport import DeliveryFailure, MailTransport, OutgoingEmail

INTERVAL_S: Final = 1.0

log = structlog.get_logger()

_OUTCOMES = Counter("ataa_receipts_total", "Receipts tried, by what became of them.", ["outcome"])

_DUE: Final = (
    select(RECEIPTS)
    .where(RECEIPTS.c.due_at <= bindparam("now"))
    .order_by(RECEIPTS.c.due_at, RECEIPTS.c.payment_id)
    .limit(bindparam("at_most"))
)
_SETTLE: Final = (
    update(RECEIPTS)
    .where(RECEIPTS.c.payment_id == bindparam("payment"))
    .values(
        status=bindparam("became"),
        tries=bindparam("tried"),
        due_at=bindparam("again_at"),
        reason=bindparam("why"),
    )
)


class ReceiptSender:
    """Sends what is due, asking pledges for addresses at that moment.

    A crash between sending and recording repeats a letter with the same Message-ID and bytes.
    """

    def __init__(
        self,
        database: Database,
        pledges: ServiceClient,
        secret: str,
        transport: MailTransport,
        sender: Address,
        per_s: float,
        clock: Clock,
        zone: tzinfo,
    ) -> None:
        self._database = database
        self._pledges = pledges
        self._secret = secret
        self._transport = transport
        self._sender = sender
        self._batch_size = max(1, round(per_s * INTERVAL_S))
        self._interval_s = self._batch_size / per_s
        self._clock = clock
        self._zone = zone

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`; where pledges is away, wait for it."""
        while not stop.is_set():
            try:
                await self.send_due()
            except ServiceUnavailable as error:
                log.warning("receipts.pledges_away", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await stop.wait()

    async def send_due(self) -> int:
        """Try one tick's worth of what is due; how many there were. Raises PeerUnavailable."""
        async with self._database.reading() as session:
            parameters = {"now": self._clock.now(), "at_most": self._batch_size}
            due = (await session.execute(_DUE, parameters)).all()
        if not due:
            return 0
        reply = await post_internal(
            self._pledges, self._secret, "/internal/receipts", {"ids": [row.pledge_id for row in due]}
        )
        outcomes = await self._deliver(due, reply["data"])
        crash_point("notify.receipts.after_send")
        updates = [self._outcome_values(row, outcomes[row.payment_id]) for row in due]
        async with self._database.transaction() as session:
            await session.execute(_SETTLE, updates)
        for one in updates:
            _OUTCOMES.labels("retried" if one["became"] == ReceiptStatus.DUE else one["became"]).inc()
        return len(due)

    async def _deliver(
        self, due: Sequence[Row[Any]], donors: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, DeliveryFailure | ReceiptStatus]:
        """What became of each receipt, by payment."""
        outcomes: dict[str, DeliveryFailure | ReceiptStatus] = {}
        emails: list[OutgoingEmail] = []
        for row in due:
            donor = donors.get(row.pledge_id)
            if donor is None or donor["email"] is None:
                outcomes[row.payment_id] = ReceiptStatus.NO_ADDRESS
                continue
            to = Recipient(donor["email"], donor["name"], donor["locale"], donor["title"])
            donation = Donation(row.payment_id, Money(row.amount, row.currency), row.counted_at)
            await asyncio.sleep(0)  # a letter takes milliseconds to write; donors wait for none of them
            try:
                message = build_receipt(donation, to, self._sender, self._zone)
                emails.append(OutgoingEmail(row.payment_id, message))
            except ValueError as error:
                outcomes[row.payment_id] = DeliveryFailure(str(error), final=True)
        if emails:
            for email, failure in zip(emails, await self._transport.deliver(emails), strict=True):
                outcomes[email.name] = failure or ReceiptStatus.SENT
        return outcomes

    def _outcome_values(self, row: Row[Any], outcome: DeliveryFailure | ReceiptStatus) -> dict[str, Any]:
        """The row's new values."""
        tries = row.tries + 1
        if isinstance(outcome, ReceiptStatus):
            return _update_values(row, outcome, tries, None, None)
        again_at = None if outcome.final else next_try_at(tries, self._clock.now())
        if again_at is not None:
            return _update_values(row, ReceiptStatus.DUE, tries, again_at, outcome.reason)
        log.error("receipts.given_up", payment=row.payment_id, tries=tries, reason=outcome.reason)
        return _update_values(row, ReceiptStatus.GIVEN_UP, tries, None, outcome.reason)


def _update_values(
    row: Row[Any], became: ReceiptStatus, tries: int, again_at: Any, why: str | None
) -> dict[str, Any]:
    return {
        "payment": row.payment_id,
        "became": became.value,
        "tried": tries,
        "again_at": again_at,
        "why": why,
    }
