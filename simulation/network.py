"""Requests between services, donors and the Stripe sandbox: in-process calls with faults, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import stripe
from stripe import HTTPClient

from backbone.http.service_client import InProcessServiceClient, ServiceResponse, ServiceUnavailable
from sandbox.deliveries import Deliveries
from sandbox.faults import Faults
from sandbox.http_server import Request
from sandbox.server import Options, Sandbox
from sandbox.webhook_client import Done
from services.payments.stripe.client import API_VERSION, StripeProcessor
from simulation.faults import Fault
from simulation.nodes import CURRENT, Node, Operations

REQUEST: Final = frozenset(
    {Fault.DELAY, Fault.ERROR, Fault.LOST_ACK, Fault.TIMEOUT, Fault.CRASH_BEFORE, Fault.CRASH_AFTER}
)
PROCESSOR: Final = REQUEST | {Fault.DUPLICATE}
ANSWER_TIMEOUT_S: Final = 2.0


class NodeClient:
    """A `ServiceClient` of one node. A request to a node that crashes meanwhile is never answered."""

    def __init__(self, node: Callable[[], Node], operations: Callable[[], Operations]) -> None:
        self._node = node
        self._operations = operations

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes = b"", query: str = ""
    ) -> ServiceResponse:
        """See `ServiceClient.request`."""

        async def send() -> ServiceResponse:
            return await _answer(self._node(), method, path, headers, body, query)

        result: ServiceResponse = await self._operations().call(
            "network",
            send,
            ServiceUnavailable,
            REQUEST,
            timeout_s=ANSWER_TIMEOUT_S,
            detail=f" {method} {path}",
        )
        return result


async def _answer(
    node: Node, method: str, path: str, headers: Mapping[str, str], body: bytes, query: str
) -> ServiceResponse:
    """Have `node` answer in tasks of its own."""
    incarnation = node.incarnation
    if incarnation is None or not incarnation.ready:
        raise ServiceUnavailable(f"{node.name} is not running")
    client = InProcessServiceClient(incarnation.service.app)
    task = incarnation.spawn(client.request(method, path, headers=headers, body=body, query=query))
    await asyncio.wait({task})
    if task.cancelled() or incarnation.dead:
        raise ServiceUnavailable(f"{node.name} crashed")
    found: ServiceResponse = task.result()
    return found


class StripeTransport(HTTPClient):
    """Stripe's library sends its requests through this to the sandbox."""

    name = "simulation"

    def __init__(self, sandbox: Callable[[], InProcessSandbox], operations: Callable[[], Operations]) -> None:
        super().__init__()
        self._sandbox = sandbox
        self._operations = operations

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One request."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        body = post_data.encode() if isinstance(post_data, str) else post_data or b""
        sent = {name.lower(): str(value) for name, value in headers.items()}

        async def send() -> tuple[bytes, int, Mapping[str, str]]:
            return await self._sandbox().answer(method.upper(), target, sent, body)

        operations = self._operations()
        fault = await operations.begin("stripe", PROCESSOR, f" {method} {parts.path}")
        if fault is Fault.ERROR:
            raise _connection_error("nothing was sent")
        answer = await send()
        if fault is Fault.DUPLICATE and method.upper() == "POST":
            answer = await send()
        operations.end(fault)
        if fault is Fault.LOST_ACK:
            raise _connection_error("the response was lost")
        if fault is Fault.TIMEOUT:
            await asyncio.sleep(ANSWER_TIMEOUT_S)
            operations.end(None)
            raise _connection_error("no response in time")
        return answer

    def sleep_async(self, secs: float) -> Any:
        """Called by the library between retries."""
        return asyncio.sleep(secs)


def _connection_error(reason: str) -> Exception:
    error: Exception = stripe.APIConnectionError(  # type: ignore[no-untyped-call]
        f"simulated: {reason}", should_retry=True
    )
    return error


class SimulatedStripe(StripeProcessor):
    """The product's Stripe client on a transport without sockets."""

    def __init__(self, key: str, transport: StripeTransport) -> None:
        super().__init__(
            key,
            base="http://sandbox.simulation",
            timeout_s=ANSWER_TIMEOUT_S,
            expires_s=86_340,
            donor_url="http://donate.simulation",
            in_flight=32,
        )
        self._transport = transport

    def _connected(self) -> stripe.StripeClient:
        if self._client is None:
            self._client = stripe.StripeClient(
                self._key,
                http_client=self._transport,
                max_network_retries=0,
                stripe_version=API_VERSION,
                base_addresses={"api": self._base},
            )
        return self._client


class InProcessSandbox(Sandbox):
    """The Stripe sandbox without its HTTP server; its webhooks go to `gateway`, with faults."""

    def __init__(
        self, key: str, webhook_secret: str, gateway: NodeClient, operations: Callable[[], Operations]
    ) -> None:
        super().__init__(Options(0, "http://gateway.simulation/webhooks/stripe", webhook_secret, key))
        self._client: Any = _WebhookPosts(gateway)
        self._operations = operations

    async def start(self) -> None:
        """Begin to deliver webhooks and to run scheduled actions."""
        self._account.base_url = "http://sandbox.simulation"
        events = self._account.events
        events.deliver = Deliveries(events, self._client, self._options.webhook_secret, self._faults).deliver
        self._ticker = asyncio.create_task(self._tick())

    def inject(self, faults: Faults) -> None:
        """Replace the sandbox's own faults, which are about webhooks and stored responses."""
        self._faults.replace(faults)

    async def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Answer one request: body, status, headers. A held response never comes."""
        token = CURRENT.set(None)
        try:
            answering = asyncio.create_task(self._reply(Request(method, target, headers, body, True)))
        finally:
            CURRENT.reset(token)
        reply = await asyncio.shield(answering)  # a client that crashes does not stop Stripe
        if reply.held:
            await asyncio.sleep(ANSWER_TIMEOUT_S)
            raise _connection_error("no response in time")
        return reply.body, reply.status, reply.headers


class _WebhookPosts:
    """What the sandbox's webhook client does, without sockets."""

    def __init__(self, gateway: NodeClient) -> None:
        self._gateway = gateway
        self._posting: dict[asyncio.Task[None], None] = {}

    def post(self, body: bytes, signature: str, done: Done) -> None:
        """Send one webhook; `done` is called once, later, with the outcome."""
        task = asyncio.get_running_loop().create_task(self._post(body, signature, done))
        self._posting[task] = None
        task.add_done_callback(lambda ended: self._posting.pop(ended, None))

    async def _post(self, body: bytes, signature: str, done: Done) -> None:
        headers = {"content-type": "application/json", "stripe-signature": signature}
        try:
            reply = await self._gateway.request("POST", "/webhooks/stripe", headers=headers, body=body)
        except ServiceUnavailable:
            done(None)
        else:
            done(reply.status)

    def sweep(self) -> None:
        """There are no connections."""

    async def close(self) -> None:
        """There are no connections."""
