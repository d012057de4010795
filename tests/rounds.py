"""Runs background workers one round at a time, so that a test decides when each round happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from backbone.durable_work import DurableWork
from services.payments.reconciliation.lookups import Reconciler
from services.payments.webhooks.apply import Applier


class Works(Protocol):
    """A worker whose loop is durable work."""

    @property
    def work(self) -> DurableWork[Any]:
        """The loop."""
        ...


async def run_round(worker: Works) -> int:
    """Run what is due; returns how many items."""
    return (await worker.work.run_round()).items


async def run_lookups(reconciler: Reconciler) -> int:
    """Run the lookups that are due, without placing facts first; returns how many."""
    return await _process(reconciler, await reconciler.due())


async def apply_waiting(applier: Applier) -> int:
    """Apply the next batch of new webhooks; returns its size."""
    return await _process(applier, await applier.waiting())


async def retry_quarantined(applier: Applier) -> int:
    """Retry the quarantined webhooks that are due, at most a batch; returns how many."""
    return await _process(applier, await applier.quarantined_due())


async def _process(worker: Works, items: Sequence[Any]) -> int:
    return (await worker.work.process(items)).items
