"""Webhook delivery: signed as Stripe signs, retried until a 2xx response, delayed or duplicated by faults.

A signature is `t=<seconds>,v1=<HMAC-SHA256 of "t.body">` (https://docs.stripe.com/webhooks#verify-manually).
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from typing import Final

from sandbox.events import EventLog
from sandbox.faults import FaultControl
from sandbox.webhook_client import WebhookClient

MAX_IN_FLIGHT: Final = 100
BODIES_IN_MEMORY: Final = 2_000  # beyond this, bodies are read from the journal when they are sent
FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 5.0
MAX_PROBE_PAUSE_S: Final = 1.0  # between probes of an unreachable receiver


@dataclass(order=True, slots=True)
class Delivery:
    """One copy of an event, due at `due` (the event loop's clock)."""

    due: float
    n: int
    attempt: int = field(default=0, compare=False)
    body: bytes | None = field(default=None, compare=False, repr=False)


def retry_after_s(attempt: int) -> float:
    """The pause after a failed attempt (from 0): 0.2, 0.4, 0.8 … 5 seconds."""
    return min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempt, 8))


def signature(secret: bytes, body: bytes, now: int) -> str:
    """The `Stripe-Signature` header of a body sent at `now`, in Unix seconds."""
    digest = hmac.digest(secret, b"%d.%b" % (now, body), "sha256")
    return f"t={now},v1={digest.hex()}"


class Deliveries:
    """Delivers committed events, at most MAX_IN_FLIGHT at a time.

    While the receiver is unreachable, one delivery at a time probes it with growing pauses. A response other
    than 2xx requeues only its own event.
    """

    def __init__(self, log: EventLog, client: WebhookClient, secret: str, faults: FaultControl) -> None:
        self._log = log
        self._client = client
        self._secret = secret.encode()
        self._faults = faults
        self._queue: list[Delivery] = []
        self._in_flight = 0
        self._unreachable = 0  # failed connections in a row
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._now: Callable[[], float] = self._loop.time

    def resume(self) -> None:
        """Queue the events that an earlier process left undelivered."""
        for n in self._log.waiting():
            heappush(self._queue, Delivery(self._now(), n))
        self._pump()

    def deliver(self, n: int, body: bytes) -> None:
        """Queue a committed event, with the copies and the delay that the faults ask for."""
        faults = self._faults.faults
        for _ in range(faults.duplicate):
            stored = body if len(self._queue) < BODIES_IN_MEMORY else None
            heappush(self._queue, Delivery(self._now() + faults.delivery_delay_s(), n, 0, stored))
        self._pump()

    def _pump(self) -> None:
        """Send what is due, up to the limit, and set the timer for the next delivery."""
        most = MAX_IN_FLIGHT if self._unreachable == 0 else 1
        now = self._now()
        while self._queue and self._in_flight < most and max(self._queue[0].due, self._not_before) <= now:
            self._send(heappop(self._queue))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue and self._in_flight < most:
            due = max(self._queue[0].due, self._not_before)
            self._timer = self._loop.call_at(due, self._pump)

    def _send(self, delivery: Delivery) -> None:
        body = delivery.body if delivery.body is not None else self._log.body(delivery.n)
        self._in_flight += 1
        stamp = signature(self._secret, body, int(time.time()))
        self._client.post(body, stamp, partial(self._answered, delivery))

    def _answered(self, delivery: Delivery, status: int | None) -> None:
        self._in_flight -= 1
        if status is not None:
            self._unreachable, self._not_before = 0, 0.0
        elif self._now() >= self._not_before:  # failures of one batch count once
            self._not_before = self._now() + min(MAX_PROBE_PAUSE_S, retry_after_s(self._unreachable))
            self._unreachable += 1
        if status is not None and 200 <= status < 300:
            self._log.acknowledge(delivery.n, time.time())
        elif delivery.n in self._log.undelivered:
            self._retry(delivery, status)
        self._pump()

    def _retry(self, delivery: Delivery, status: int | None) -> None:
        delivery.due = self._now() + (retry_after_s(delivery.attempt) if status is not None else 0)
        delivery.attempt += 1
        if len(self._queue) >= BODIES_IN_MEMORY:
            delivery.body = None
        heappush(self._queue, delivery)
