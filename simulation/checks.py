"""What must hold at the end of a run: for the books, the log, its viewers and the receipts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from email import message_from_bytes
from pathlib import Path
from typing import Any, Final

from backbone.http.caller import sign_caller
from backbone.http.service_client import ServiceUnavailable
from rehearsal.freshness import Freshness
from rehearsal.installation import Installation
from rehearsal.proof import Auditor, Proof, settle
from simulation.live_viewer import LiveViewer
from simulation.system import ADMIN_KEY, INTERNAL_SECRET, SERVICES, STRIPE_KEY, WEBHOOK_SECRET, System
from simulation.viewer import SHOWN_S, Viewer
from simulation.workload import DRIVE, Workload

GATEWAY_PORT: Final = 1
SANDBOX_PORT: Final = 2
SETTLE_S: Final = 60.0
"""How long a run without further faults may take to settle; a run that never settles costs all of it."""


class InMemorySession:
    """Lets the rehearsal's auditor read services and sandbox as it reads them over HTTP."""

    def __init__(self, system: System) -> None:
        self._system = system

    @asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> Any:
        """GET `url`; its port says of whom."""
        port, _, target = url.removeprefix("http://127.0.0.1:").partition("/")
        if int(port) == SANDBOX_PORT:
            body, status, _ = await self._system.run.sandbox.answer("GET", f"/{target}", {}, b"")
            yield _Response(status, body)
            return
        name = "gateway" if int(port) == GATEWAY_PORT else SERVICES[int(port) - 3]
        path, _, query = target.partition("?")
        sent = dict(headers or {"authorization": f"Bearer {ADMIN_KEY}"})
        try:
            reply = await self._system.request_client(name).request(
                "GET", f"/{path}", headers=sent, query=query
            )
        except ServiceUnavailable as error:
            raise ConnectionError(str(error)) from error
        yield _Response(reply.status, reply.body)


class _Response:
    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body

    async def read(self) -> bytes:
        return self._body


class Checks:
    """The checks of one run, which may have a viewer that holds a stream."""

    def __init__(self, system: System, workload: Workload, live: LiveViewer | None = None) -> None:
        self._system = system
        self._workload = workload
        self._freshness = Freshness()
        self._session = InMemorySession(system)
        self.viewer = Viewer(system, self._freshness)
        self._live = live
        installation = Installation(
            system.folder, GATEWAY_PORT, SANDBOX_PORT, STRIPE_KEY, WEBHOOK_SECRET, DRIVE
        )
        ports = {name: place + 3 for place, name in enumerate(SERVICES)}
        (system.folder / "ports.json").write_text(json.dumps(ports))
        (system.folder / "secrets.json").write_text(json.dumps({"internal": INTERNAL_SECRET}))
        self._auditor = Auditor(installation, self._session, self._freshness)  # type: ignore[arg-type]

    async def settle(self) -> list[str]:
        """Wait until the system has settled; what does not hold then."""
        proof = await settle(self._auditor, self._workload.tally, self._freshness, _waiting, SETTLE_S)
        violations = _of_proof(proof)
        if violations:
            return violations
        violations += await self._until_drained()
        violations += await self._of_books()
        violations += await self._of_log()
        violations += await self._of_receipts()
        await self.viewer.look()
        return violations

    async def _until_drained(self) -> list[str]:
        """Wait until every outbox, inbox and queue is empty."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + SETTLE_S
        while True:
            waiting: dict[str, int] = {}
            for name in SERVICES:
                counts = await self._internal(name, "/internal/quiet")
                counts.pop("backfills", None)  # a count of calm reads of Stripe, not of work
                waiting |= {f"{name}.{what}": count for what, count in counts.items() if count}
            if not waiting:
                return []
            if loop.time() > give_up:
                return [f"not drained: {waiting}"]
            await asyncio.sleep(0.5)

    async def _of_books(self) -> list[str]:
        """The books once more, now that nothing is in transit, and leaderboard's recount."""
        readings = await self._auditor.read_books()
        violations = [
            f"the books differ: {name} {dict(book)}, sandbox {dict(readings.books['sandbox'])}"
            for name, book in readings.books.items()
            if {c: a for c, a in book.items() if a}
            != {c: a for c, a in readings.books["sandbox"].items() if a}
        ]
        recount = (await self._internal("leaderboard", "/internal/differences"))["data"]
        if recount:
            violations.append(f"stored sums differ from their recount: {recount}")
        return violations + [f"dead letter: {row}" for row in self._dead_letters()]

    def _dead_letters(self) -> list[str]:
        bus = self._system.run.bus
        rows = bus._durable.execute("SELECT name, value FROM records WHERE topic LIKE '%dead-letter'")
        return [f"{name} {value[:300]!r}" for name, value in rows]

    async def _log(self) -> list[Mapping[str, Any]]:
        """The drive's whole log."""
        rows: list[Mapping[str, Any]] = []
        while True:
            after = rows[-1]["sequence"] if rows else 0
            page = await self._public(f"/v1/drives/{DRIVE}/events?after={after}&limit=100")
            rows += page["data"]
            if len(page["data"]) < 100:
                return rows

    async def _of_log(self) -> list[str]:
        """The drive's log has no gap, its amounts add up, and all viewers are shown its end."""
        rows = await self._log()
        violations = []
        sequences = [row["sequence"] for row in rows]
        if sequences != list(range(1, len(rows) + 1)):
            violations.append(f"the log has gaps: {sequences}")
        raised = {row["sequence"]: row["raised_after"]["value"] for row in rows}
        violations += self.viewer.shown.differences(raised)
        if rows:
            violations += await self._of_totals(sequences[-1], raised[sequences[-1]])
        if self._live is not None:
            violations += await self._live.settle(self._log)
        return violations

    async def _of_totals(self, sequence: int, raised: int) -> list[str]:
        """The totals show the log's end after `SHOWN_S`."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + SHOWN_S
        while True:
            totals = await self._public(f"/v1/drives/{DRIVE}/totals")
            if (totals["sequence"], totals["raised"]["value"]) == (sequence, raised):
                return []
            if loop.time() > give_up:
                return [f"the totals do not show the log's end: {totals['sequence']} of {sequence}"]
            await asyncio.sleep(0.1)

    async def _of_receipts(self) -> list[str]:
        """One receipt for each counted donation of a donor with an address, none for any other."""
        expected = set(self._workload.with_email)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + SETTLE_S
        while True:
            receipts = _receipts(self._system.folder / "receipts")
            if len(receipts) >= len(expected) or loop.time() > give_up:
                break
            await asyncio.sleep(0.5)
        violations = []
        if len(receipts) != len(expected):
            violations.append(f"{len(receipts)} receipts for {len(expected)} donations")
        sent_to = sorted(receipts.values())
        if not violations and sent_to != sorted(self._workload.with_email.values()):
            violations.append(f"receipts went to {sent_to}")
        return violations

    async def _internal(self, name: str, path: str) -> Any:
        headers = sign_caller(INTERNAL_SECRET, partner="simulation", scopes=("internal",))
        port = SERVICES.index(name) + 3
        async with self._session.get(f"http://127.0.0.1:{port}{path}", headers) as response:
            return json.loads(await response.read())

    async def _public(self, path: str) -> Any:
        async with self._session.get(f"http://127.0.0.1:{GATEWAY_PORT}{path}") as response:
            return json.loads(await response.read())


def _of_proof(proof: Proof) -> list[str]:
    violations = []
    if not proof.drained:
        violations.append(f"not settled: {proof.read_error}; books {_shown(proof.books)}")
    if apart := {one: amount for one, amount in proof.difference.items() if amount}:
        violations.append(f"the books differ by {_shown(apart)}: {_shown(proof.books)}")
    if proof.lost:
        violations.append(f"paid and not counted: {list(proof.lost)}")
    if proof.counted_twice:
        violations.append(f"counted twice: {list(proof.counted_twice)}")
    if proof.uncaptured:
        violations.append(f"not captured: {proof.uncaptured}")
    return violations


def _shown(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {name: _shown(value) for name, value in found.items()}
    return str(found) if isinstance(found, Decimal) else found


def _receipts(folder: Path) -> dict[str, str]:
    """The recipient of each receipt by Message-ID."""
    found = {}
    for file in sorted(folder.glob("*.eml")) if folder.exists() else ():
        message = message_from_bytes(file.read_bytes())
        found[f"{file.name} {message['Message-ID']}"] = str(message["To"]).rpartition("<")[2].rstrip(">")
    return found


async def _waiting(pending: str) -> None:
    return
