"""The limit of reads that prove something to anybody: audits, checkpoints, tiles and proofs."""

from __future__ import annotations

from types import TracebackType

from gateway.access.limits import ConcurrencyLimit
from gateway.overload.ladder import Step
from gateway.overload.shedding import Shedding


class ProofLimit:
    """A context manager for such a read. They need no key, so they take no place of partners' reads.

    Entering raises `Overloaded` past the limit, and from the first step of the ladder on. Reading a
    proof a minute later loses nothing.
    """

    def __init__(self, limit: ConcurrencyLimit, shedding: Shedding) -> None:
        self._limit = limit
        self._shedding = shedding

    def check(self) -> None:
        """Raises `Overloaded` if entering would."""
        self._shedding.refuse(Step.RECENT, "Audits and proofs")
        self._limit.check()

    def __enter__(self) -> None:
        self._shedding.refuse(Step.RECENT, "Audits and proofs")
        self._limit.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limit.__exit__(kind, error, trace)
