"""The event log: every change as a Stripe Event, stored for `events.list` and passed on for delivery."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Final, NamedTuple

from sandbox.api_call import ApiCall
from sandbox.journal import Journal
from sandbox.records import Json, Payment, new_id
from sandbox.stripe_objects import API_VERSION, to_json

DROPPED: Final = 1
"""In the column `dropped`: lost by a fault, never delivered; listed by `delivery_success=false`."""
UNSUBSCRIBED: Final = 2
"""In the column `dropped`: the endpoint is not subscribed to the type, so nothing is pending."""

INSERT: Final = (
    "INSERT INTO events (id, created, type, payment, session, pledge, dropped, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Subject(NamedTuple):
    """The objects an event is about, so that a delivery can be matched with its donation."""

    payment: str | None = None
    session: str | None = None
    pledge: str | None = None

    @classmethod
    def of(cls, payment: Payment) -> Subject:
        return cls(payment.id, payment.session, payment.pledge)


class EventLog:
    """Writes events in the transaction of their change; after its commit, passes them to `deliver`.

    The composition root sets `deliver(n, body)`, `drop()` (whether a delivery is lost) and `unsubscribed()`
    (the types that the endpoint does not receive).
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

    def emit(self, kind: str, subject: Subject, obj: Json, call: ApiCall | None = None) -> None:
        """Record an event of type `kind`. `obj` is the Stripe object after the change."""
        event_id = new_id("evt_")
        created = int(self._clock())
        wanted = kind not in self.unsubscribed()
        event = {
            "id": event_id,
            "object": "event",
            "api_version": API_VERSION,
            "created": created,
            "data": {"object": obj},
            "livemode": False,
            "pending_webhooks": int(wanted),
            "request": {
                "id": call.request_id if call else None,
                "idempotency_key": call.idempotency_key if call else None,
            },
            "type": kind,
        }
        body = to_json(event).encode()
        dropped = UNSUBSCRIBED if not wanted else DROPPED if self.drop() else 0
        n = self._journal.write(INSERT, (event_id, created, kind, *subject, dropped, body))
        if wanted:
            self.undelivered.add(n)
        if not dropped:
            self._journal.after_commit(partial(self.deliver, n, body))

    def acknowledge(self, n: int, at: float) -> None:
        """Record the first 2xx response to an event; later ones change nothing. `at` is Unix time."""
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
        """Numbers of the events neither delivered nor dropped, oldest first."""
        rows = self._journal.rows("SELECT n FROM events WHERE dropped = ?", (DROPPED,))
        return sorted(self.undelivered - {n for (n,) in rows})

    def deliveries(self, after: int, limit: int) -> Json:
        """First acknowledgements, in order; `next` is the `after` of the following page."""
        rows = self._journal.rows(
            "SELECT acks.n, id, type, payment, session, pledge, at FROM acks"
            " JOIN events ON events.n = acks.event WHERE acks.n > ? ORDER BY acks.n LIMIT ?",
            (after, limit),
        )
        names = ("n", "event", "type", "payment_intent", "session", "pledge", "acked_at")
        data = [dict(zip(names, row, strict=True)) for row in rows]
        return {"data": data, "next": rows[-1][0] if rows else after}
