"""`python -m bench.webhook_load SECRET`: sends signed webhooks of Stripe, each of another event.

The order comes as JSON on standard input, as for `bench.http_load`; its request is replaced.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from dataclasses import asdict
from typing import Final

from bench.event_loop import run_on_uvloop
from bench.http_load import Load, Order, generate

_EVENT: Final = {
    "id": "evt_{number}",
    "object": "event",
    "api_version": "2026-10-28.endive",
    "created": 1_641_513_600,
    "livemode": False,
    "type": "payment_intent.succeeded",
    "data": {
        "object": {
            "id": "pi_{number}",
            "object": "payment_intent",
            "amount": 2_500,
            "amount_received": 2_500,
            "currency": "usd",
            "status": "succeeded",
            "created": 1_641_513_600,
            "metadata": {
                "ataa_drive": "drv_01frtz5n00000000000000000a",
                "ataa_payment": "pay_01frtz5n00000000{number}",
                "ataa_pledge": "plg_01frtz5n00000000{number}",
            },
            "receipt_email": "donor-{number}@example.org",
            "payment_method_types": ["card"],
            "description": "x" * 400,
        }
    },
}


class Webhooks(Load):
    """The load of webhooks; the generator's part of the CPU contains the signing."""

    def __init__(self, order: Order, secret: bytes) -> None:
        super().__init__(order)
        self._secret = secret
        self._body = json.dumps(_EVENT).encode()
        self._first = time.time_ns() % 10**9 * 10

    def request(self) -> bytes:
        """The next event, signed now (docs.stripe.com/webhooks#verify-manually)."""
        self.number += 1
        body = self._body.replace(b"{number}", b"%010d" % ((self._first + self.number) % 10**10))
        at = b"%d" % time.time()
        signature = hmac.new(self._secret, at + b"." + body, hashlib.sha256).hexdigest().encode()
        return (
            b"POST /webhooks/stripe HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Stripe-Signature: t=%b,v1=%b\r\nContent-Length: %d\r\n\r\n%b" % (at, signature, len(body), body)
        )


def main(secret: str) -> None:
    """Read the order, send, write the report."""
    order = Order(**json.load(sys.stdin))
    report = run_on_uvloop(generate(order, lambda given: Webhooks(given, secret.encode())))
    json.dump(asdict(report), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
