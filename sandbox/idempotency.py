"""Idempotency keys as Stripe keeps them (https://docs.stripe.com/api/idempotent_requests).

A key replays its first response, a 500 included, for 24 hours, and refuses other parameters.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

from sandbox.account import Account
from sandbox.errors import ApiError, invalid

RETENTION_S: Final = 86_400
MAX_KEY_LENGTH: Final = 255


class StoredAnswer(NamedTuple):
    """The response stored under a key."""

    status: int
    body: bytes


class IdempotencyStore:
    """Stored responses, and the keys whose first request is in progress."""

    def __init__(self, account: Account) -> None:
        self._journal = account.journal
        self._clock = account.clock
        self._running: set[str] = set()

    def stored(self, key: str, fingerprint: bytes) -> StoredAnswer | None:
        """The response stored under a key, if any.

        Raises ApiError: 400 for a key used with other parameters or longer than 255 characters, 409 while its
        first request is in progress.
        """
        if len(key) > MAX_KEY_LENGTH:
            raise invalid("Idempotency keys are limited to 255 characters.")
        row = self._journal.row(
            "SELECT fingerprint, status, body FROM answers WHERE key = ? AND made_at > ?",
            (key, self._clock() - RETENTION_S),
        )
        if row is not None and row[0] != fingerprint:
            raise _key_reused(key)
        if key in self._running:
            raise _key_in_use()
        return StoredAnswer(row[1], row[2]) if row else None

    def begin(self, key: str) -> None:
        self._running.add(key)

    def end(self, key: str) -> None:
        self._running.discard(key)

    def store(self, key: str, fingerprint: bytes, answer: StoredAnswer) -> None:
        """Store a key's response, in the transaction of the request's changes."""
        self._journal.write(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)",
            (key, self._clock(), fingerprint, answer.status, answer.body),
        )

    def delete_expired(self) -> None:
        self._journal.write("DELETE FROM answers WHERE made_at <= ?", (self._clock() - RETENTION_S,))


def fingerprint(path: str, body: str) -> bytes:
    """A hash of the path and the parameters, independent of their order."""
    pairs = "&".join(sorted(body.split("&")))
    return blake2b(f"{path}\n{pairs}".encode("utf-8", "replace"), digest_size=16).digest()


def _key_reused(key: str) -> ApiError:
    message = (
        "Keys for idempotent requests can only be used with the same parameters they were first used with."
        f" Try using a key other than '{key}' if you meant to execute a different request."
    )
    return ApiError(400, {"type": "idempotency_error", "message": message})


def _key_in_use() -> ApiError:
    message = (
        "There is currently another in-progress request using this Idempotent Key (that probably means you"
        " submitted twice, and the other request is still going through). Please try again later."
    )
    return ApiError(409, {"type": "idempotency_error", "code": "idempotency_key_in_use", "message": message})
