"""Two replicas of each service on one Kafka and five databases, with a client that donates and polls."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from backbone.database.leader_work import ADVISORY_LOCK
from backbone.http.caller import sign_caller
from stack import process_specs
from stack.layout import HOST, Layout, lay_out
from stack.settings import SERVICES
from stack.topics import read_topics
from tests.engines import free_port, fresh_postgres, fresh_topics
from tests.forked_process import ForkedProcess
from tests.stack.balancer import Balancer
from tests.waiting import until

GROUPS: Final = ("pledges", "payments", "leaderboard", "notify")
LEADERS: Final = {
    "pledges": ["pledges.relay"],
    "payments": ["payments.relay", "payments.checkouts", "payments.applier", "payments.backfill"],
    "leaderboard": ["leaderboard.relay"],
    "notify": ["notify.relay", "notify.receipts"],
}
"""The leader tasks of each service: one process at a time runs them."""

SESSION_S: Final = 6
AMOUNT: Final = {"currency": "USD", "value": "10.00"}

_LEADER_COUNT: Final = (
    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
    f" WHERE locktype = 'advisory' AND classid = {ADVISORY_LOCK} AND granted AND datname = current_database()"
    " AND objid::bigint = hashtext($1)::bigint & 4294967295"
)


@dataclass
class Replica:
    """One process of a service, with its own ports."""

    name: str
    index: int
    port: int
    metrics: int
    process: ForkedProcess


class Mailbox:
    """The receipts that the mail server accepted: recipient and Message-ID of each."""

    def __init__(self) -> None:
        self.receipts: list[tuple[str, str]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        """Accept a message (aiosmtpd's handler)."""
        assert isinstance(envelope.content, bytes)
        lines = envelope.content.decode().splitlines()
        number = next(line for line in lines if line.lower().startswith("message-id:"))
        self.receipts.append((envelope.rcpt_tos[0], number))
        return "250 OK"


@dataclass
class ReplicatedStack:
    """The processes of the stack; `replicas[name]` are those of a service."""

    layout: Layout
    given: dict[str, str]
    balancers: dict[str, Balancer]
    client: aiohttp.ClientSession
    mailbox: Mailbox
    replicas: dict[str, list[Replica]] = field(default_factory=dict)
    donors: list[str] = field(default_factory=list)

    # Processes.

    async def start(self, index: int, names: Sequence[str] = SERVICES) -> None:
        """Start one replica of each service, and wait until all are ready."""
        started = [self._spawn(name, index) for name in names]
        for one in started:
            await until(lambda one=one: self._is_ready(one), 180)  # type: ignore[misc]
            self.balancers[one.name].ready.append(one.port)

    def _spawn(self, name: str, index: int) -> Replica:
        port, metrics = free_port(), free_port()
        spec = process_specs.service(name, self._layout_for(name), self.given, sandbox=True)
        own = {f"ATAA_{name.upper()}_PORT": str(port), "ATAA_METRICS_PORT": str(metrics)}
        configured = replace(spec, environment={**spec.environment, **own})
        process = _run(configured, self.layout, f"{name}-{index}")
        one = Replica(name, index, port, metrics, process)
        replicas = self.replicas.setdefault(name, [])
        replicas[index : index + 1] = [one]
        return one

    def _layout_for(self, name: str) -> Layout:
        return replace(self.layout, ports={**self.layout.ports, f"metrics_{name}": 0})

    async def _is_ready(self, one: Replica) -> bool:
        assert one.process.poll() is None, self.log(one)
        with suppress(aiohttp.ClientError):
            async with self.client.get(f"http://{HOST}:{one.port}/readyz") as answer:
                return answer.status == 200
        return False

    def log(self, one: Replica) -> str:
        """The end of a replica's log."""
        return self.layout.log(f"{one.name}-{one.index}").read_text()[-3000:]

    def send(self, index: int, number: int, names: Sequence[str] = SERVICES) -> None:
        """Send a signal to one replica of each service; the balancer skips it while it is stopped."""
        for name in names:
            one = self.replicas[name][index]
            if number in (signal.SIGKILL, signal.SIGSTOP):
                self.balancers[name].take_out(one.port)
            one.process.send_signal(number)
            if number == signal.SIGKILL:
                one.process.wait()
            elif number == signal.SIGCONT:
                self.balancers[name].ready.append(one.port)

    def end(self) -> None:
        """Kill the remaining processes."""
        for one in itertools.chain.from_iterable(self.replicas.values()):
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()

    # Donating.

    async def post(self, url: str, body: Any, **headers: str) -> Any:
        """POST with the admin key; returns the JSON, None without a reply or with an error."""
        own = {"Authorization": f"Bearer {self.layout.secrets['admin']}", **headers}
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self.client.post(
                url, json=body, headers=own, timeout=aiohttp.ClientTimeout(total=10)
            ) as answer:
                assert answer.status < 500 or answer.status in (500, 502, 503, 504), await answer.text()
                return await answer.json() if answer.status < 300 else None
        return None

    def gateway_url(self, index: int) -> str:
        """The address of one gateway replica."""
        return f"http://{HOST}:{self.replicas['gateway'][index].port}"

    async def open_drives(self, count: int) -> list[str]:
        """Open `count` drives."""
        slugs = [f"drive-{n}" for n in range(count)]
        for slug in slugs:
            url = f"{self.layout.url('gateway')}/v1/drives"
            body = {"slug": slug, "title": "Winter", "currency": "USD",
                    "goal": {"currency": "USD", "value": "1000.00"}}  # fmt: skip
            assert await self.post(url, body)
            assert await self.post(f"{url}/{slug}/open", {})
        return slugs

    async def donate(self, slug: str, index: int | None = None) -> None:
        """Make a donation through one gateway or the balancer; retries until it is paid."""
        donor, key = f"donor-{len(self.donors)}@example.org", uuid.uuid4().hex
        self.donors.append(donor)
        gateway = self.layout.url("gateway") if index is None else self.gateway_url(index)
        body = {"amount": AMOUNT, "donor": {"email": donor}}
        headers = {"Idempotency-Key": key, "Prefer": "wait=3"}

        async def opened() -> Any:
            made = await self.post(f"{gateway}/v1/drives/{slug}/pledges", body, **headers)
            return await self._checkout(gateway, made) if made else None

        url = await until(opened, 120)

        async def paid() -> bool:
            done = await self.post(f"{url}/pay", {"card": "4242424242424242"})
            return done is not None and done["payment_status"] == "paid"

        await until(paid, 60)

    async def _checkout(self, gateway: str, made: Any) -> Any:
        """The address of the payment page; None while the pledge has no checkout."""
        if made["checkout"]:
            return made["checkout"]["url"]
        url = f"{gateway}/v1/pledges/{made['id']}?token={made['token']}"
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self.client.get(url, headers={"Prefer": "wait=3"}) as answer:
                found = await answer.json() if answer.status == 200 else {}
                return found["checkout"]["url"] if found.get("checkout") else None
        return None

    # Reading.

    async def get_internal(self, one: Replica, path: str) -> Any:
        """GET an internal endpoint of one replica."""
        headers = sign_caller(self.layout.secrets["internal"], partner="ataa", scopes=("internal",))
        async with self.client.get(f"http://{HOST}:{one.port}{path}", headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def totals(self, index: int, slug: str) -> Any:
        """A drive's totals from one gateway."""
        async with self.client.get(f"{self.gateway_url(index)}/v1/drives/{slug}/totals") as answer:
            return await answer.json()

    async def board(self, index: int, slug: str) -> Any:
        """A drive's leaderboard from one gateway, with a query that avoids the cache."""
        url = f"{self.gateway_url(index)}/v1/drives/{slug}/leaderboards/creators?anew={uuid.uuid4().hex}"
        async with self.client.get(url) as answer:
            return await answer.json()

    async def unsettled(self) -> list[str]:
        """What differs or is still pending, at any replica."""
        given = str(Decimal(AMOUNT["value"]) * len(self.donors))
        async with self.client.get(f"{self.layout.url('sandbox')}/_sandbox/books") as answer:
            books = (await answer.json())["USD"]
        found = [] if books["captured"] == given else [f"the sandbox has {books}, not {given}"]
        for name in GROUPS:
            for one in self.replicas[name]:
                pending = await self.get_internal(one, "/internal/quiet")
                if any(pending.values()):
                    found.append(f"{name} {one.index}: {pending}")
                if name != "notify" and (net := await self.get_internal(one, "/internal/books")) != {
                    "USD": given
                }:
                    found.append(f"{name} {one.index} has {net}, not {given}")
        return found

    async def leader_count(self, service: str, work: str) -> int:
        """How many processes hold the leader lock of `work` in a service's database."""
        connection = await asyncpg.connect(self.layout.databases[service])
        try:
            return int(await connection.fetchval(_LEADER_COUNT, work))
        finally:
            await connection.close()

    async def partitions(self, group: str) -> list[int]:
        """How many partitions each running replica of a service consumes."""
        found = []
        for one in self.replicas[group]:
            if one.process.poll() is None:
                async with self.client.get(f"http://{HOST}:{one.metrics}/") as answer:
                    lines = (await answer.text()).splitlines()
                name = f'ataa_consumer_partitions{{group="{group}"}} '
                found += [int(float(line.removeprefix(name))) for line in lines if line.startswith(name)]
        return found

    async def sessions(self) -> Counter[str]:
        """How many checkout sessions each payment has at the sandbox."""
        headers = {"Authorization": f"Bearer {self.layout.secrets['stripe_key']}"}
        found: Counter[str] = Counter()
        after = ""
        while True:
            url = f"{self.layout.url('sandbox')}/v1/checkout/sessions?limit=100{after}"
            async with self.client.get(url, headers=headers) as answer:
                page = await answer.json()
            found.update(one["metadata"]["ataa_payment"] for one in page["data"])
            if not page["has_more"]:
                return found
            after = f"&starting_after={page['data'][-1]['id']}"


def _run(spec: process_specs.ProcessSpec, layout: Layout, log: str) -> ForkedProcess:
    _, _, module, *arguments = spec.command  # python -m …
    return ForkedProcess(module, arguments, spec.environment, layout.log(log))


@asynccontextmanager
async def replicated_stack(folder: Path) -> AsyncIterator[ReplicatedStack]:
    """A stack without its services: engines, sandbox, mail server and balancers."""
    async with AsyncExitStack() as stack:
        bootstrap, prefix = await stack.enter_async_context(
            fresh_topics(*(one.name for one in read_topics()))
        )
        databases = {name: await stack.enter_async_context(fresh_postgres()) for name in SERVICES}
        balancers = {name: Balancer() for name in SERVICES}
        for one in balancers.values():
            await one.start()
            stack.push_async_callback(one.close)
        mailbox = Mailbox()
        post = Controller(mailbox, hostname=HOST, port=free_port())
        post.start()
        stack.callback(post.stop)
        ports = {name: one.port for name, one in balancers.items()}
        ports |= {"sandbox": free_port(), "postgres": 0, **{f"metrics_{name}": 0 for name in SERVICES}}
        layout = lay_out(folder, folder, ports, {}, kafka=bootstrap, databases=databases)
        given = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")} | {
            "ATAA_KAFKA_SESSION_S": str(SESSION_S),
            "ATAA_KAFKA_PREFIX": prefix,
            "ATAA_SMTP_URL": f"smtp://{HOST}:{post.port}",
            "ATAA_RECEIPTS_PER_S": "200",
            "ATAA_STRIPE_BACKFILL_S": "2",
        }
        client = await stack.enter_async_context(aiohttp.ClientSession())
        found = ReplicatedStack(layout, given, balancers, client, mailbox)
        sandbox = _run(process_specs.sandbox(layout), layout, "sandbox")
        stack.callback(sandbox.wait)
        stack.callback(sandbox.kill)
        stack.callback(found.end)
        yield found


@dataclass
class Watcher:
    """Polls a drive's totals at one gateway and records every decrease; nothing is refunded here."""

    replicated_stack: ReplicatedStack
    index: int
    slug: str
    seen: tuple[int, int, int] = (0, 0, 0)
    as_of: str = ""
    raised: Decimal = Decimal(0)
    looks: int = 0
    decreased: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Poll until cancelled; failures are ignored."""
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                await self._look()
            await asyncio.sleep(0.1)

    async def _look(self) -> None:
        url = f"{self.replicated_stack.gateway_url(self.index)}/v1/drives/{self.slug}/totals"
        async with self.replicated_stack.client.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
            if answer.status != 200:
                return
            totals, etag = await answer.json(), answer.headers["ETag"]
        epoch, sequence, revision, _ = etag.removeprefix('W/"').split(".")
        shown = int(epoch), int(sequence), int(revision)
        raised = Decimal(totals["raised"]["value"])
        if shown < self.seen or totals["as_of"] < self.as_of or raised < self.raised:
            before, now = (self.seen, self.as_of, self.raised), (shown, totals["as_of"], raised)
            self.decreased.append(f"{before} -> {now}")
        self.seen, self.as_of, self.raised = shown, totals["as_of"], raised
        self.looks += 1
