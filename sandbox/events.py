"""The event log: every change as a Stripe Event, kept for `events.list` and handed on for delivery."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Final, NamedTuple

from sandbox.call import Call
from sandbox.journal import Journal
from sandbox.records import Json, Payment, new_id
from sandbox.shapes import API_VERSION, to_json

DROPPED: Final = 1
"""In the column `dropped`: never delivered, though it should be; found by `delivery_success=false`."""
UNSUBSCRIBED: Final = 2
"""In the column `dropped`: of a type the endpoint is not subscribed to, so that nothing is undelivered."""

INSERT: Final = (
    "INSERT INTO events (id, created, type, payment, session, pledge, dropped, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Subject(NamedTuple):
    """Whom an event is about, for those who match deliveries to gifts."""

    payment: str | None = None
    session: str | None = None
    pledge: str | None = None

    @classmethod
    def of(cls, payment: Payment) -> Subject:
        return cls(payment.id, payment.session, payment.pledge)


class EventLog:
    """Writes events in the transaction of their change; once it is committed they go to `deliver`.

    `deliver(n, body)` is set by whoever delivers; `drop()` says whether an event's delivery gets lost,
    `unsubscribed()` which types the endpoint does not want.
    """

    def __init__(self, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._clock = clock
        self.deliver: Callable[[int, bytes], None] = lambda n, body: None
        self.drop: Callable[[], bool] = lambda: False
        self.unsubscribed: Callable[[], Collection[str]] = tuple
        acked = "SELECT event FROM acks"
        rows = journal.rows(
            f"SELECT n FROM events WHERE n NOT IN ({acked}) AND dropped < ? ORDER BY n", (UNSUBSCRIBED,)
        )
        self.undelivered: set[int] = {n for (n,) in rows}

    def emit(self, kind: str, subject: Subject, thing: Json, call: Call | None = None) -> None:
        """Record that something happened. `thing` is the Stripe object as it now is."""
        event_id = new_id("evt_")
        created = int(self._clock())
        wanted = kind not in self.unsubscribed()
        event = {
            "id": event_id,
            "object": "event",
            "api_version": API_VERSION,
            "created": created,
            "data": {"object": thing},
            "livemode": False,
            "pending_webhooks": int(wanted),
            "request": {
                "id": call.request_id if call else None,
                "idempotency_key": call.idempotency_key if call else None,
            },
            "type": kind,
        }
        body = to_json(event).encode()
        fate = UNSUBSCRIBED if not wanted else DROPPED if self.drop() else 0
        n = self._journal.write(INSERT, (event_id, created, kind, *subject, fate, body))
        if wanted:
            self.undelivered.add(n)
        if not fate:
            self._journal.after_commit(partial(self.deliver, n, body))

    def acknowledge(self, n: int, at: float) -> None:
        """Record the first 2xx to an event; later ones change nothing. `at` is Unix time."""
        if n not in self.undelivered:
            return
        self.undelivered.discard(n)
        self._journal.write("INSERT INTO acks (event, at) VALUES (?, ?)", (n, at))
        self._journal.commit_lazily()

    def body(self, n: int) -> bytes:
        row = self._journal.row("SELECT body FROM events WHERE n = ?", (n,))
        assert row is not None
        return bytes(row[0])

    def waiting(self) -> list[int]:
        """Numbers of the events that are neither delivered nor dropped, oldest first."""
        rows = self._journal.rows("SELECT n FROM events WHERE dropped = ?", (DROPPED,))
        return sorted(self.undelivered - {n for (n,) in rows})

    def deliveries(self, after: int, limit: int) -> Json:
        """First acknowledgements in their order, numbered; `next` is where to read on."""
        rows = self._journal.rows(
            "SELECT acks.n, id, type, payment, session, pledge, at FROM acks"
            " JOIN events ON events.n = acks.event WHERE acks.n > ? ORDER BY acks.n LIMIT ?",
            (after, limit),
        )
        names = ("n", "event", "type", "payment_intent", "session", "pledge", "acked_at")
        data = [dict(zip(names, row, strict=True)) for row in rows]
        return {"data": data, "next": rows[-1][0] if rows else after}
