"""Lookups at pledges of drives that have no snapshot yet: nobody has given to them, or they do not exist."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from backbone.http.service_client import ServiceClient, ServiceUnavailable, post_internal
from backbone.money import as_json
from gateway.live.view import DriveView

UNKNOWN_S: Final = 1.0
"""How long a name that pledges does not know is not looked up again."""
MOST_UNKNOWN: Final = 10_000


class Lookups:
    """Finds drives by id or slug, at pledges where no snapshot of them was received.

    `known` returns the view that is held under an id or slug, and `hold` makes one of a drive as pledges
    shows it.
    """

    def __init__(
        self,
        pledges: ServiceClient,
        secret: str,
        known: Callable[[str], DriveView | None],
        hold: Callable[[Mapping[str, Any]], DriveView],
    ) -> None:
        self._pledges = pledges
        self._secret = secret
        self._known = known
        self._hold = hold
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._pending: dict[str, asyncio.Future[Mapping[str, DriveView]]] = {}

    def are_needed(self, refs: Iterable[str]) -> bool:
        """Whether finding these takes a request to pledges."""
        return any(self._is_needed(ref) for ref in refs)

    def _is_needed(self, ref: str) -> bool:
        view, now = self._known(ref), asyncio.get_running_loop().time()
        if view is None:
            return now >= self._unknown.get(ref, 0.0)
        return view.is_placeholder and now >= view.placeholder_until

    async def find(self, refs: Iterable[str]) -> list[DriveView | None]:
        """The view of each drive, None for unknown ones; one request to pledges for all that need it.

        Raises `ServiceUnavailable` where pledges does not answer and no view is held.
        """
        wanted = list(refs)
        if new := [ref for ref in wanted if ref not in self._pending and self._is_needed(ref)]:
            self._pending |= dict.fromkeys(new, asyncio.ensure_future(self._look_up(new)))
        # All are read before the first await: each leaves `_pending` when it is answered.
        pending = {ref: self._pending[ref] for ref in wanted if ref in self._pending}
        return [await self._found(ref, pending.get(ref)) for ref in wanted]

    async def _found(
        self, ref: str, pending: asyncio.Future[Mapping[str, DriveView]] | None
    ) -> DriveView | None:
        if pending is None:
            return self._known(ref)
        try:
            return (await asyncio.shield(pending)).get(ref)
        except ServiceUnavailable:
            if (view := self._known(ref)) is None:
                raise
            return view

    async def _look_up(self, refs: Sequence[str]) -> Mapping[str, DriveView]:
        """Those of `refs` that pledges knows."""
        try:
            reply = await post_internal(self._pledges, self._secret, "/internal/drives", {"refs": refs})
        finally:
            for ref in refs:
                del self._pending[ref]
        found = {ref: drive for ref in refs if (drive := reply["data"].get(ref)) is not None}
        self._note_unknown(ref for ref in refs if ref not in found)
        return {ref: self._hold(drive) for ref, drive in found.items()}

    def _note_unknown(self, refs: Iterable[str]) -> None:
        """Do not look these up again for `UNKNOWN_S`; past `MOST_UNKNOWN` the oldest are forgotten."""
        until = asyncio.get_running_loop().time() + UNKNOWN_S
        for ref in refs:
            self._unknown[ref] = until
            self._unknown.move_to_end(ref)
        while len(self._unknown) > MOST_UNKNOWN:
            self._unknown.popitem(last=False)


def empty_totals(drive: Mapping[str, Any]) -> dict[str, Any]:
    """The totals of a drive without gifts (`drive` as pledges shows it)."""
    currency = drive["currency"]
    zero = as_json(0, currency)
    states = ("pledged", "captured", "refunded", "disputed", "offline", "matched", "held")
    milestones = [{**milestone, "reached_at": None} for milestone in drive.get("milestones") or ()]
    return {
        "drive": drive["id"], "slug": drive["slug"], "title": drive["title"], "currency": currency,
        "raised": zero, "goal": drive["goal"], "percent": 0.0, "donations": 0, "donors": 0,
        "by_state": dict.fromkeys(states, zero), "per_minute": {"donations": 0, "raised": zero},
        "leaders": [], "recent": [], "milestones": milestones,
        "alerts": {"version": 0, "paused": False, "skip": None, "replay": None}, "pinned": None,
        "matching": [],
    }  # fmt: skip
