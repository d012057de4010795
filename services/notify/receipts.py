"""Sending receipts: one for each donation, at a bounded rate, so that donations come first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from email.headerregistry import Address
from typing import Any, Final

from prometheus_client import Counter
from sqlalchemy import Row, bindparam, select, update

from backbone.clock import Clock
from backbone.crash import crash_point
from backbone.database.database import Database
from backbone.durable_work import DurableWork, Failed, Failure
from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from backbone.money import Money
from services.notify.domain import ReceiptStatus, retry_after
from services.notify.emails import Donation, Recipient, build_receipt
from services.notify.tables import RECEIPTS
from services.notify.transport import DeliveryFailure, MailTransport, OutgoingEmail

INTERVAL_S: Final = 1.0
"""About the time between two batches; a batch is what the rate allows in it."""

_OUTCOMES = Counter("ataa_receipts_total", "Receipts tried, by outcome.", ["outcome"])

_DUE: Final = (
    select(RECEIPTS)
    .where(RECEIPTS.c.due_at <= bindparam("now"))
    .order_by(RECEIPTS.c.due_at, RECEIPTS.c.payment_id)
    .limit(bindparam("at_most"))
)
_RECORD: Final = (
    update(RECEIPTS)
    .where(RECEIPTS.c.payment_id == bindparam("at_payment"))
    .values({name: bindparam(f"to_{name}") for name in ("status", "tries", "due_at", "reason")})
)


class ReceiptSender:
    """Sends the receipts that are due; pledges is asked for addresses at that moment.

    A crash between sending and recording repeats an email with the same Message-ID and bytes.
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
        self._clock = clock
        self._zone = zone
        interval_s = self._batch_size / per_s
        self._work = DurableWork(
            "notify.receipts",
            self,
            retry_after=retry_after,
            unavailable=(ServiceUnavailable,),
            poll_s=interval_s,
            interval_s=interval_s,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`; while pledges is unavailable, wait for it."""
        await self._work.run(stop)

    async def send_due(self) -> int:
        """Try one batch of the receipts that are due; how many. Raises `ServiceUnavailable`."""
        return (await self._work.run_round()).items

    async def fetch_due(self) -> Sequence[Row[Any]]:
        """See `WorkQueue`."""
        async with self._database.reading() as session:
            parameters = {"now": self._clock.now(), "at_most": self._batch_size}
            return (await session.execute(_DUE, parameters)).all()

    async def run_batch(self, batch: Sequence[Row[Any]]) -> Sequence[Failed[Row[Any]]]:
        """See `WorkQueue`: send a batch of receipts and record the outcomes that are final."""
        reply = await post_internal(
            self._pledges, self._secret, "/internal/receipts", {"ids": [row.pledge_id for row in batch]}
        )
        outcomes = await self._deliver(batch, reply["data"])
        crash_point("notify.receipts.after_send")
        failed: list[Failed[Row[Any]]] = []
        updates: list[dict[str, Any]] = []
        for row in batch:
            outcome = outcomes[row.payment_id]
            if isinstance(outcome, ReceiptStatus):
                updates.append(_update_values(row, outcome, row.tries + 1))
            else:
                failed.append(Failed(row, outcome.reason, outcome.final))
        await self._record(updates)
        return failed

    def label(self, item: Row[Any]) -> str:
        """See `WorkQueue`."""
        return str(item.payment_id)

    def failures(self, item: Row[Any]) -> int:
        """See `WorkQueue`."""
        return int(item.tries)

    async def retry(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`."""
        due_at = self._clock.now() + (failure.delay or timedelta())
        values = _update_values(item, ReceiptStatus.DUE, failure.attempts, due_at, failure.reason)
        await self._record([values])

    async def quarantine(self, item: Row[Any], failure: Failure) -> None:
        """See `WorkQueue`: the receipt is given up."""
        values = _update_values(item, ReceiptStatus.GIVEN_UP, failure.attempts, reason=failure.reason)
        await self._record([values])

    async def _record(self, updates: Sequence[dict[str, Any]]) -> None:
        if not updates:
            return
        async with self._database.transaction() as session:
            await session.execute(_RECORD, updates)
        for values in updates:
            outcome = values["to_status"]
            _OUTCOMES.labels("retried" if outcome == ReceiptStatus.DUE else outcome).inc()

    async def _deliver(
        self, due: Sequence[Row[Any]], donors: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, DeliveryFailure | ReceiptStatus]:
        """The outcome of each receipt, by payment."""
        outcomes: dict[str, DeliveryFailure | ReceiptStatus] = {}
        emails: list[OutgoingEmail] = []
        for row in due:
            donor = donors.get(row.pledge_id)
            if donor is None or donor["email"] is None:
                outcomes[row.payment_id] = ReceiptStatus.NO_ADDRESS
                continue
            to = Recipient(donor["email"], donor["name"], donor["locale"], donor["title"])
            donation = Donation(row.payment_id, Money(row.amount, row.currency), row.counted_at)
            await asyncio.sleep(0)  # building an email takes milliseconds; let requests run in between
            try:
                message = build_receipt(donation, to, self._sender, self._zone)
                emails.append(OutgoingEmail(row.payment_id, message))
            except ValueError as error:
                outcomes[row.payment_id] = DeliveryFailure(str(error), final=True)
        if emails:
            for email, failure in zip(emails, await self._transport.deliver(emails), strict=True):
                outcomes[email.name] = failure or ReceiptStatus.SENT
        return outcomes


def _update_values(
    row: Row[Any],
    status: ReceiptStatus,
    tries: int,
    due_at: datetime | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {
        "at_payment": row.payment_id,
        "to_status": status.value,
        "to_tries": tries,
        "to_due_at": due_at,
        "to_reason": reason,
    }
