"""Idempotency keys as Stripe keeps them (https://docs.stripe.com/api/idempotent_requests).

A key keeps its first answer for 24 hours, a 500 included, and refuses other parameters.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

from sandbox.account import Account
from sandbox.refusals import Refusal, invalid

KEPT_S: Final = 86_400
LONGEST_KEY: Final = 255


class Answer(NamedTuple):
    """What was answered under a key."""

    status: int
    body: bytes


class Answers:
    """The stored answers, and the keys whose first request is still running."""

    def __init__(self, account: Account) -> None:
        self._journal = account.journal
        self._clock = account.clock
        self._running: set[str] = set()

    def stored(self, key: str, fingerprint: bytes) -> Answer | None:
        """The answer the key keeps, if any.

        Raises Refusal: 400 for a key used with other parameters or over 255 characters, 409 while the first
        request with it is still running.
        """
        if len(key) > LONGEST_KEY:
            raise invalid("Idempotency keys are limited to 255 characters.")
        row = self._journal.row(
            "SELECT fingerprint, status, body FROM answers WHERE key = ? AND made_at > ?",
            (key, self._clock() - KEPT_S),
        )
        if row is not None and row[0] != fingerprint:
            raise _used_otherwise(key)
        if key in self._running:
            raise _in_use()
        return Answer(row[1], row[2]) if row else None

    def begin(self, key: str) -> None:
        self._running.add(key)

    def end(self, key: str) -> None:
        self._running.discard(key)

    def keep(self, key: str, fingerprint: bytes, answer: Answer) -> None:
        """Store the first answer, in the transaction of what it answers."""
        self._journal.write(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)",
            (key, self._clock(), fingerprint, answer.status, answer.body),
        )

    def forget_old(self) -> None:
        self._journal.write("DELETE FROM answers WHERE made_at <= ?", (self._clock() - KEPT_S,))


def fingerprint(path: str, body: str) -> bytes:
    """Equal for equal parameters in any order."""
    pairs = "&".join(sorted(body.split("&")))
    return blake2b(f"{path}\n{pairs}".encode("utf-8", "replace"), digest_size=16).digest()


def _used_otherwise(key: str) -> Refusal:
    message = (
        "Keys for idempotent requests can only be used with the same parameters they were first used with."
        f" Try using a key other than '{key}' if you meant to execute a different request."
    )
    return Refusal(400, {"type": "idempotency_error", "message": message})


def _in_use() -> Refusal:
    message = (
        "There is currently another in-progress request using this Idempotent Key (that probably means you"
        " submitted twice, and the other request is still going through). Please try again later."
    )
    return Refusal(409, {"type": "idempotency_error", "code": "idempotency_key_in_use", "message": message})
