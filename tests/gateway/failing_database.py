"""A gateway's database that can be made unavailable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backbone.database.database import Database
from backbone.database.transaction import Transaction
from backbone.database.transient import DatabaseUnavailable


class FailingDatabase(Database):
    """While `down` every transaction is refused, and counted in `refused`."""

    down = False
    refused = 0

    @asynccontextmanager
    async def transaction(self, *, timeout_s: float | None = None) -> AsyncIterator[Transaction]:
        """See `Database`."""
        self._refuse()
        async with super().transaction(timeout_s=timeout_s) as transaction:
            yield transaction

    @asynccontextmanager
    async def lossy_transaction(self) -> AsyncIterator[Transaction]:
        """See `Database`."""
        self._refuse()
        async with super().lossy_transaction() as transaction:
            yield transaction

    @asynccontextmanager
    async def reading(self, *, timeout_s: float | None = None) -> AsyncIterator[Transaction]:
        """See `Database`."""
        self._refuse()
        async with super().reading(timeout_s=timeout_s) as transaction:
            yield transaction

    def _refuse(self) -> None:
        if self.down:
            self.refused += 1
            raise DatabaseUnavailable("down")
