"""The embedded process and the Stripe sandbox, each started as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from backbone.http.caller import sign_caller
from tests.forked_process import ForkedProcess
from tests.ports import free_port
from tests.waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
STRIPE_KEY = "sk_test_of_the_tests"
WEBHOOK_SECRET = "whsec_of_the_tests"
ADMIN_KEY = "ak_admin_0123456789abcdefghij"

_key_numbers = itertools.count()


@dataclass
class Answer:
    """A response: status, headers and the parsed body."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass
class EmbeddedSystem:
    """Ataa on free ports in a folder of its own. It may be started, killed and started again."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    gateway_port: int = field(default_factory=free_port)
    sandbox_port: int = field(default_factory=free_port)
    embedded: ForkedProcess | None = None
    sandbox: ForkedProcess | None = None
    client: aiohttp.ClientSession = field(init=False)

    @property
    def url(self) -> str:
        """The address of the public API."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def sandbox_url(self) -> str:
        """The address of the Stripe sandbox."""
        return f"http://127.0.0.1:{self.sandbox_port}"

    @property
    def log(self) -> str:
        """The whole log of the embedded process."""
        return (self.folder / "embedded.log").read_text(errors="replace")

    def environment(self) -> dict[str, str]:
        """The environment of both processes."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
        return {
            **kept,
            "ATAA_DATA_DIR": str(self.folder / "data"),
            "ATAA_GATEWAY_PORT": str(self.gateway_port),
            "ATAA_SANDBOX_PORT": str(self.sandbox_port),
            "ATAA_STRIPE_API_BASE": self.sandbox_url,
            "ATAA_STRIPE_API_KEY": STRIPE_KEY,
            "ATAA_STRIPE_WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "ATAA_STRIPE_BACKFILL_S": "1",
            "ATAA_STRIPE_SWEEP_S": "1",
            "ATAA_STRIPE_SETTLEMENT_S": "3600",  # no postings between two counts of rows
            "ATAA_ADMIN_KEY": ADMIN_KEY,
            "ATAA_OVERLOAD_LAG_S": "60",  # a busy machine is no overload here (tests/conftest.py)
            **self.settings,
        }

    async def start(self, **settings: str) -> None:
        """Start the embedded process, and the sandbox unless it runs, and wait until both answer."""
        self.client = getattr(self, "client", None) or aiohttp.ClientSession()
        if self.sandbox is None:
            self.sandbox = self._spawn("sandbox", "sandbox.log", "--data", str(self.folder / "sandbox.db"))
            await until(lambda: self._answers(f"{self.sandbox_url}/livez"))
        self.embedded = starting = self._spawn("embedded", "embedded.log", **settings)
        to_crash = "ATAA_CRASH_AT" in settings  # with queued work it may crash before it answers
        await until(lambda: (to_crash and starting.poll() is not None) or self._answers(f"{self.url}/readyz"))

    def _spawn(self, module: str, log: str, *arguments: str, **settings: str) -> ForkedProcess:
        self.folder.mkdir(exist_ok=True)
        return ForkedProcess(module, list(arguments), self.environment() | settings, self.folder / log)

    async def _answers(self, url: str) -> bool:
        if self.embedded is not None and self.embedded.poll() is not None:
            raise RuntimeError(
                f"the embedded process ended with {self.embedded.returncode}:\n{self.log[-2000:]}"
            )
        with contextlib.suppress(aiohttp.ClientError):
            async with self.client.get(url) as answer:
                return answer.status == 200
        return False

    def kill(self, signal_number: int = signal.SIGKILL) -> int:
        """Send the embedded process a signal, wait until it ends and return its exit status."""
        assert self.embedded is not None
        self.embedded.send_signal(signal_number)
        return self.embedded.wait(PATIENCE_S)

    async def wait_until_killed(self) -> None:
        """Wait for the embedded process to have been killed at its crash point."""
        process = self.embedded
        assert process is not None
        await until(lambda: process.poll() is not None)
        assert process.returncode == -signal.SIGKILL, self.log[-2000:]
        self.embedded = None

    async def close(self) -> None:
        """Kill both processes and close the client."""
        for process in (self.embedded, self.sandbox):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        await self.client.close()

    # Through the public API.

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request: `body` as JSON unless it is bytes, `_` in a header's name as `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if data is not None:
            named.setdefault("Content-Type", "application/json")
        url = path if path.startswith("http") else self.url + path
        async with self.client.request(method, url, data=data, headers=named) as answer:
            raw = await answer.read()
            kind = answer.headers.get("Content-Type", "")
            return Answer(answer.status, answer.headers, json.loads(raw) if raw and "json" in kind else raw)

    async def admin(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request with the admin key and, for a POST, a new idempotency key."""
        if method == "POST":
            headers.setdefault("Idempotency_Key", new_idempotency_key())
        return await self.request(method, path, body, Authorization=f"Bearer {ADMIN_KEY}", **headers)

    async def open_drive(self, slug: str, currency: str = "USD", **more: Any) -> dict[str, Any]:
        """Create and open a drive with one creator, `star`."""
        goal = {
            "currency": currency,
            "value": {"JPY": "1000000", "KWD": "10000.000"}.get(currency, "10000.00"),
        }
        body = {
            "slug": slug,
            "title": {"en": "Winter", "ar": "شتاء"},
            "currency": currency,
            "goal": goal,
            **more,
        }
        made = await self.admin("POST", "/v1/drives", body)
        assert made.status == 201, made.body
        creator = await self.admin("POST", f"/v1/drives/{slug}/creators", {"slug": "star", "name": "Star"})
        assert creator.status == 201, creator.body
        opened = await self.admin("POST", f"/v1/drives/{slug}/open")
        assert opened.status == 200, opened.body
        return dict(opened.body)

    async def pledge(
        self, drive: str, value: str = "25.00", currency: str = "USD", **more: Any
    ) -> dict[str, Any]:
        """Make a pledge, retried with one key until it has a checkout."""
        key, body = new_idempotency_key(), {"amount": {"currency": currency, "value": value}, **more}

        async def made_with_checkout() -> dict[str, Any] | None:
            with contextlib.suppress(aiohttp.ClientError):
                made = await self.admin(
                    "POST", f"/v1/drives/{drive}/pledges", body, Idempotency_Key=key, Prefer="wait=5"
                )
                if made.status == 201 and made.body["checkout"]:
                    return dict(made.body)
                assert made.status in {201, 500, 503}, made.body
            return None

        found: dict[str, Any] = await until(made_with_checkout, 2 * PATIENCE_S)
        return found

    async def pay(self, pledge: Mapping[str, Any], card: str = "4242424242424242") -> Any:
        """Pay a pledge's checkout at the sandbox."""
        answer = await self.request("POST", pledge["checkout"]["url"] + "/pay", {"card": card})
        assert answer.status == 200, answer.body
        return answer.body

    async def donate(self, drive: str, value: str = "25.00", **more: Any) -> dict[str, Any]:
        """Make a pledge and pay it."""
        pledge = await self.pledge(drive, value, **more)
        assert (await self.pay(pledge))["payment_status"] == "paid"
        return pledge

    async def totals(self, drive: str) -> dict[str, Any]:
        """The totals as an overlay reads them."""
        answer = await self.request("GET", f"/v1/drives/{drive}/totals")
        assert answer.status == 200, answer.body
        return dict(answer.body)

    async def wait_for_raised(self, drive: str, value: str, **by_state: str) -> dict[str, Any]:
        """Wait until the totals show `value`, and these sums by state; return the totals."""

        async def there() -> dict[str, Any] | None:
            totals = await self.totals(drive)
            shown = {state: totals["by_state"][state]["value"] for state in by_state}
            return totals if (totals["raised"]["value"], shown) == (value, by_state) else None

        try:
            found: dict[str, Any] = await until(there)
        except TimeoutError as error:
            raise AssertionError(f"raised {(await self.totals(drive))['raised']}, not {value}") from error
        return found

    async def newest_donation(self, drive: str, name: str) -> dict[str, Any]:
        """Wait until the newest donation has this name, which may arrive after the figures."""

        async def there() -> dict[str, Any] | None:
            recent = (await self.totals(drive))["recent"]
            return recent[0] if recent and recent[0]["name"] == name else None

        found: dict[str, Any] = await until(there)
        return found

    async def faults(self, **faults: Any) -> None:
        """Set the sandbox's faults; without arguments, clear them."""
        answer = await self.request("POST", f"{self.sandbox_url}/_sandbox/faults", faults)
        assert answer.status == 200, answer.body

    # The books, each read from its owner alone.

    async def books(self) -> dict[str, dict[str, str]]:
        """Net processor money by currency, of the sandbox and of each service."""
        answer = await self.request("GET", f"{self.sandbox_url}/_sandbox/books")
        found = {"sandbox": {name: _less_fees(book) for name, book in answer.body.items()}}
        for service in ("payments", "leaderboard", "pledges"):
            found[service] = await self.internal(service, "/internal/books")
        return {
            owner: {name: net for name, net in book.items() if float(net)} for owner, book in found.items()
        }

    async def internal(self, service: str, path: str) -> Any:
        """GET an internal route of one service."""
        ports = json.loads((self.folder / "data" / "ports.json").read_text())
        secrets = json.loads((self.folder / "data" / "secrets.json").read_text())
        headers = sign_caller(secrets["internal"], partner="tests", scopes=("internal",))
        async with self.client.get(f"http://127.0.0.1:{ports[service]}{path}", headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def wait_until_books_agree(self) -> dict[str, str]:
        """Wait until all owners have equal books and nothing is in transit; return the books."""

        async def settled() -> dict[str, dict[str, str]] | None:
            books = await self.books()
            same = all(book == books["sandbox"] for book in books.values())
            return books if same and await self.is_drained() else None

        try:
            found: dict[str, dict[str, str]] = await until(settled, 2 * PATIENCE_S)
        except TimeoutError as error:
            in_transit = {name: await self.internal(name, "/internal/quiet") for name in SERVICES}
            raise AssertionError(f"the books differ: {await self.books()}, {in_transit}") from error
        return found["sandbox"]

    async def is_drained(self) -> bool:
        """Whether every outbox, inbox and queue is empty."""
        for service in SERVICES:
            counts = await self.internal(service, "/internal/quiet")
            counts.pop("backfills", None)  # a count of calm reads of Stripe, not of work
            if any(counts.values()):
                return False
        return True

    async def rows_when_drained(self) -> dict[str, int]:
        """The row counts once nothing is in transit, to check that nothing was stored."""
        await until(self.is_drained)
        return self.rows()

    def rows(self) -> dict[str, int]:
        """The number of rows of each table, except those whose rows are temporary or audits made unasked."""
        found = {}
        for file in sorted((self.folder / "data").glob("*.db")):
            if file.name in {"bus.db", "sandbox.db"}:
                continue
            with contextlib.closing(sqlite3.connect(file)) as database:
                tables = [
                    row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                ]
                for table in tables:
                    if table not in {"positions", "outbox", "inbox", "sqlite_sequence", "proofs"}:
                        count = database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
                        found[f"{file.stem}.{table}"] = count
        return found


SERVICES = ("pledges", "payments", "leaderboard")


def _less_fees(book: Mapping[str, str]) -> str:
    from decimal import Decimal

    return str(Decimal(book["captured"]) - Decimal(book["refunded"]) - Decimal(book["disputed"]))


def new_idempotency_key() -> str:
    """A new idempotency key."""
    return f"tests-{os.getpid()}-{next(_key_numbers)}"


@contextlib.asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[EmbeddedSystem]:
    """Run a system until the block ends."""
    system = EmbeddedSystem(folder, settings)
    try:
        await system.start()
        yield system
    finally:
        await system.close()


@contextlib.asynccontextmanager
async def copied(stopped: Path, folder: Path) -> AsyncIterator[EmbeddedSystem]:
    """Yield a system that is not started, on a copy of the data of one that ended; kill it at the end."""
    shutil.copytree(stopped, folder)
    system = EmbeddedSystem(folder)
    try:
        yield system
    finally:
        await system.close()


async def live_frames(
    system: EmbeddedSystem, drive: str, frames: asyncio.Queue[tuple[str, str, Any]], **headers: str
) -> None:
    """Put each server-sent event (`event`, `id`, data) of a drive into `frames` until the stream ends."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with system.client.get(f"{system.url}/v1/drives/{drive}/live", headers=named) as answer:
        assert answer.status == 200
        event, number, data = "", "", ""
        async for raw in answer.content:
            line = raw.decode().rstrip("\n")
            name, _, value = line.partition(": ")
            if name == "event":
                event = value
            elif name == "id":
                number = value
            elif name == "data":
                data += value
            elif not line and event:
                frames.put_nowait((event, number, json.loads(data) if data else None))
                event, number, data = "", "", ""
