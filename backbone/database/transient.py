"""Classification of database errors: transient, so that a retry may succeed, or permanent.

Group commit, consumers and background work share this rule: a transient error does not depend on the data, so
the whole batch is retried; after a permanent error a batch is bisected until the failing item is alone.
Callers that wait for a response are retried briefly (group commit), background work without limit (a
consumer).
"""

from __future__ import annotations

import errno
import sqlite3
from enum import Enum
from typing import Final

from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout


class TransientFailure(Enum):
    """Why a database operation failed, where a retry may succeed; the value is the message for clients."""

    UNAVAILABLE = "The database is temporarily unavailable."
    SLOW = "The database did not answer in time."
    BUSY = "The database is busy with a conflicting change."
    FULL = "The database has run out of space."
    READ_ONLY = "The database is temporarily read-only."


class DatabaseUnavailable(ConnectionError):
    """The database cannot be reached, or a connection to it was cut."""


class DatabaseSlow(DatabaseUnavailable):
    """The database did not answer within the transaction's bound.

    The outcome of a transaction that was being committed is unknown. Idempotency keys, inbox rows and
    positions make it safe to repeat.
    """


def transient_failure(error: BaseException) -> TransientFailure | None:
    """The transient failure behind a database error; None for a permanent error."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(getattr(original, "__cause__", None), ValueError):
        return None  # asyncpg's error for a value that its column cannot store
    if isinstance(error, DatabaseSlow):
        return TransientFailure.SLOW
    if isinstance(error, DatabaseUnavailable | PoolTimeout):
        return TransientFailure.UNAVAILABLE
    if isinstance(original, sqlite3.Error):
        return _of_sqlite(original)
    state = str(getattr(original, "sqlstate", None) or "")
    if (found := _BY_STATE.get(state) or _BY_CLASS.get(state[:2])) is not None:
        return found
    if isinstance(error, DBAPIError) and (error.connection_invalidated or isinstance(original, _CUT)):
        return TransientFailure.UNAVAILABLE
    if not state and isinstance(error, OperationalError | InterfaceError):
        return TransientFailure.UNAVAILABLE
    return None


def is_transient(error: BaseException) -> bool:
    """Whether `error` does not depend on the data, so that a retry may succeed.

    The database is unavailable, full or read-only, too slow, or resolved a deadlock by ending this
    transaction; or the network or a resource of the operating system failed. A missing file or a denied
    permission is permanent.
    """
    if transient_failure(error) is not None or isinstance(error, ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in RESOURCES_EXHAUSTED


RESOURCES_EXHAUSTED: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""The operating system has run out of disk space, open files or memory."""

_CUT: Final = (
    # Raised by asyncpg for a connection that was terminated by the server but whose socket is not yet closed.
    AsyncAdapt_asyncpg_dbapi.InternalClientError,
    # The schema changed after a statement was prepared; The statement has been discarded by now.
    AsyncAdapt_asyncpg_dbapi.InvalidCachedStatementError,
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_CLASS: Final = {
    "08": TransientFailure.UNAVAILABLE,  # connection exception
    "53": TransientFailure.UNAVAILABLE,  # insufficient resources
    "57": TransientFailure.UNAVAILABLE,  # operator intervention
    "58": TransientFailure.UNAVAILABLE,  # system error, outside PostgreSQL itself
}
_BY_STATE: Final = {
    "25006": TransientFailure.READ_ONLY,  # the connection is to a server that has become a standby
    "25P03": TransientFailure.UNAVAILABLE,  # idle in transaction session timeout
    "40001": TransientFailure.BUSY,  # serialization failure
    "40003": TransientFailure.UNAVAILABLE,  # statement completion unknown
    "40P01": TransientFailure.BUSY,  # deadlock
    "53100": TransientFailure.FULL,  # disk full
    "55006": TransientFailure.BUSY,  # object in use
    "55P03": TransientFailure.BUSY,  # lock not available
    "57014": TransientFailure.SLOW,  # canceled, by statement_timeout as a rule
}

# https://www.sqlite.org/rescode.html
_BY_SQLITE: Final = {
    sqlite3.SQLITE_BUSY: TransientFailure.BUSY,
    sqlite3.SQLITE_LOCKED: TransientFailure.BUSY,
    sqlite3.SQLITE_PROTOCOL: TransientFailure.BUSY,
    sqlite3.SQLITE_INTERRUPT: TransientFailure.SLOW,
    sqlite3.SQLITE_FULL: TransientFailure.FULL,
    sqlite3.SQLITE_READONLY: TransientFailure.READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: TransientFailure.UNAVAILABLE,
    sqlite3.SQLITE_IOERR: TransientFailure.UNAVAILABLE,
    sqlite3.SQLITE_NOMEM: TransientFailure.UNAVAILABLE,
}


def _of_sqlite(error: sqlite3.Error) -> TransientFailure | None:
    """By the primary result code, which is the low byte of an extended one."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else _BY_SQLITE.get(code & 0xFF)
