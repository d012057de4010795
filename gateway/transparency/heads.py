"""Heads of public logs: verified to continue the last one that was signed, stored, then signed.

A head is stored before it is signed, in the gateway's database, which is not the one of the log. If the log
is lost, restored to an older state or changed, its next head does not continue the stored one, and is refused
until it does or the drive's epoch is raised.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client import Counter
from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite

from backbone.clock import Clock
from backbone.database.database import Database
from backbone.http.problems import NotFound, Overloaded, Problem
from backbone.transparency.merkle import is_consistent
from gateway.tables import SIGNED_HEADS
from gateway.transparency.log_client import LogClient
from gateway.transparency.note_keys import NoteSigner

KEPT: Final = timedelta(seconds=1)
MAX_KEPT: Final = 1_000
TRIES: Final = 5
"""Attempts while other gateways sign heads of the same log."""

log = structlog.get_logger()
_REFUSED: Final = Counter(
    "ataa_log_heads_refused_total",
    "Heads of public logs that were not signed because they do not continue the last one.",
)


class LogNotSigned(NotFound):
    slug, title = "log-not-signed", "This installation has no key for its public logs"


class LogInconsistent(Problem):
    status, slug, title = 503, "log-inconsistent", "The log does not continue its last signed head"


class Head(NamedTuple):
    """A signed head; `note` is its checkpoint."""

    drive_id: str
    epoch: int
    size: int
    root: bytes
    note: str


class _Stored(NamedTuple):
    size: int
    root: str


_OF_LOG: Final = (
    SIGNED_HEADS.c.drive_id == bindparam("of_drive"),
    SIGNED_HEADS.c.epoch == bindparam("of_epoch"),
)
_READ: Final = select(SIGNED_HEADS.c.size, SIGNED_HEADS.c.root).where(*_OF_LOG)
_ADVANCE: Final = (
    update(SIGNED_HEADS)
    .where(*_OF_LOG, SIGNED_HEADS.c.size == bindparam("of_size"), SIGNED_HEADS.c.root == bindparam("of_root"))
    .values(size=bindparam("new_size"), root=bindparam("new_root"))
)
_FIRST: Final = {
    "sqlite": sqlite.insert(SIGNED_HEADS).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(SIGNED_HEADS).on_conflict_do_nothing(),
}


class Heads:
    """The newest head of each log, signed at most once a second."""

    def __init__(self, database: Database, logs: LogClient, signer: NoteSigner | None, clock: Clock) -> None:
        self._database = database
        self._logs = logs
        self._signer = signer
        self._clock = clock
        self._kept: OrderedDict[tuple[str, int | None], tuple[datetime, Head]] = OrderedDict()
        self._under_way: dict[tuple[str, int | None], asyncio.Task[Head]] = {}

    def signer(self) -> NoteSigner:
        """The key. Raises `LogNotSigned` where there is none."""
        if self._signer is None:
            raise LogNotSigned("The setting ATAA_LOG_KEY is empty.")
        return self._signer

    async def newest(self, drive: str, epoch: int | None = None, *, above: int = -1) -> Head:
        """A head that is at most `KEPT` old; if it has no more than `above` rows, one made now.

        Raises `LogNotSigned`, `LogInconsistent`, `NotFound`, `Overloaded` and `ServiceUnavailable`.
        """
        signer, ref = self.signer(), (drive, epoch)
        kept = self._kept.get(ref)
        if kept is not None and kept[1].size > above and self._clock.now() - kept[0] < KEPT:
            return kept[1]
        task = self._under_way.get(ref)
        if task is None:
            task = self._under_way[ref] = asyncio.create_task(self._make(signer, *ref))
        return await asyncio.shield(task)

    async def _make(self, signer: NoteSigner, drive: str, epoch: int | None) -> Head:
        began = self._clock.now()
        try:
            head = await self._sign(signer, drive, epoch)
        finally:
            del self._under_way[drive, epoch]
        self._kept[drive, epoch] = (began, head)
        self._kept.move_to_end((drive, epoch))
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return head

    async def _sign(self, signer: NoteSigner, drive: str, epoch: int | None) -> Head:
        since: _Stored | None = None
        for _ in range(TRIES):
            newest = await self._logs.head(drive, epoch, None if since is None else since.size)
            of = {"of_drive": newest["drive"], "of_epoch": newest["epoch"]}
            stored = await self._stored(of)
            if stored is not None and stored != since:
                since = stored  # asked again, with the proof that the head continues this one
                continue
            if stored is not None:
                _check(stored, newest)
            if await self._store(of, stored, newest):
                return _signed(signer, newest)
        raise Overloaded("Other heads of this log are being signed.")

    async def _stored(self, of: Mapping[str, Any]) -> _Stored | None:
        async with self._database.reading() as session:
            row = (await session.execute(_READ, of)).first()
        return None if row is None else _Stored(row.size, row.root)

    async def _store(self, of: Mapping[str, Any], stored: _Stored | None, newest: Mapping[str, Any]) -> bool:
        """Store a head that continues `stored`; whether no other gateway stored one meanwhile."""
        size, root = newest["size"], newest["root"]
        if stored == (size, root):
            return True
        async with self._database.transaction() as session:
            if stored is None:
                row = {"drive_id": of["of_drive"], "epoch": of["of_epoch"], "size": size, "root": root}
                done = await session.execute(_FIRST[session.dialect.name], row)
            else:
                values = {"of_size": stored.size, "of_root": stored.root, "new_size": size, "new_root": root}
                done = await session.execute(_ADVANCE, {**of, **values})
            return done.rowcount == 1


def _check(stored: _Stored, newest: Mapping[str, Any]) -> None:
    """Raises `LogInconsistent` for a head that does not continue the stored one."""
    if newest["size"] < stored.size <= newest["logged"]:
        raise Overloaded("The hashes of this log are being computed.")
    proof = newest["consistency"]
    if proof is not None and is_consistent(
        stored.size, _bytes(stored.root), newest["size"], _bytes(newest["root"]), [*map(_bytes, proof)]
    ):
        return
    _REFUSED.inc()
    named = {name: newest[name] for name in ("drive", "epoch", "size", "logged")}
    log.error("log_head.refused", **named, signed_size=stored.size)
    raise LogInconsistent(f"{stored.size} rows are signed; the log has {newest['logged']}.")


def _signed(signer: NoteSigner, newest: Mapping[str, Any]) -> Head:
    origin = f"{signer.name}/v1/drives/{newest['drive']}/{newest['epoch']}"
    text = f"{origin}\n{newest['size']}\n{newest['root']}\n"
    # The key's name should be the origin (tlog-checkpoint); one key, under its own name, signs all logs too.
    note = signer.sign(text, (origin, signer.name))
    return Head(newest["drive"], newest["epoch"], newest["size"], _bytes(newest["root"]), note)


def _bytes(text: str) -> bytes:
    return b64decode(text)
