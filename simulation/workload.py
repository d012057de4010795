"""The donors of a run: they pledge, cancel, pay, get refunds, dispute, and repeat what was not answered."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backbone.http.service_client import ServiceClient, ServiceResponse, ServiceUnavailable
from rehearsal.donors import Tally
from rehearsal.gifts import DECLINED_CARD, GOOD_CARD, REFUND_FAILS_CARD
from simulation.system import ADMIN_KEY, System

DRIVE: Final = "winter"
CREATORS: Final = ("star", "moon")
EMAILS: Final = ("ada@donors.example", "ben@donors.example", "eve@donors.example")
RETRY_S: Final = 0.1
LOOK_S: Final = 0.2
"""How often a donor asks whether the checkout is open."""
PATIENCE_S: Final = 90.0
"""How long a donor repeats a request. Longer is a failure of the run."""
FEWEST_DONORS: Final = 1
MOST_DONORS: Final = 4
ARRIVALS_S: Final = 1.2
"""All donors arrive within this time."""
MILESTONE_CENTS: Final = (500, 15_000)
"""The lowest and the highest amount of the milestone that is added in some runs: most are reached."""


OUTCOMES: Final = {
    "nothing": 4,
    "refund": 3,
    "part": 3,
    "cancel": 2,
    "cancel_late": 1,
    "dispute_lost": 2,
    "dispute_won": 2,
    "fails": 2,
}
"""What donors do after they have pledged, and how often."""


class NotServed(AssertionError):
    """A donor's request was refused, or not answered within `PATIENCE_S`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One donor."""

    number: int
    arrives_s: float
    cents: int
    email: str | None
    creator: str | None
    card: str
    then: str
    pause_s: float


@dataclass(slots=True)
class Workload:
    """What the donors did and observed, in the terms of the rehearsal's proof."""

    tally: Tally = field(default_factory=Tally)
    with_email: dict[str, str] = field(default_factory=dict)
    """The pledges that were paid by donors with an e-mail address."""


def plan(seed: int) -> list[Plan]:
    """The donors of a seed."""
    chance = random.Random(f"donors {seed}")  # noqa: S311 - it has to repeat
    donors = []
    for number in range(chance.randint(FEWEST_DONORS, MOST_DONORS)):
        (then,) = chance.choices(list(OUTCOMES), list(OUTCOMES.values()))
        card = REFUND_FAILS_CARD if then == "fails" else GOOD_CARD
        if chance.random() < 0.1:
            card = DECLINED_CARD
        donors.append(
            Plan(
                number,
                chance.uniform(0, ARRIVALS_S),
                chance.randrange(100, 20_000),
                chance.choice(EMAILS) if chance.random() < 0.7 else None,
                chance.choice((*CREATORS, None)),
                card,
                then,
                chance.uniform(0, 0.5) if chance.random() < 0.5 else 0.0,
            )
        )
    return donors


def every_outcome() -> list[Plan]:
    """Donors of which each does something else."""
    cards = {"fails": REFUND_FAILS_CARD}
    return [
        Plan(number, 0.1 * number, 1_000, EMAILS[0], CREATORS[0], cards.get(then, GOOD_CARD), then, 0.1)
        for number, then in enumerate(OUTCOMES)
    ]


class Donors:
    """Carries out a plan through the public API."""

    def __init__(self, system: System, plans: Sequence[Plan]) -> None:
        self.workload = Workload()
        self._system = system
        self._gateway: ServiceClient = system.request_client("gateway")
        self._plans = plans
        self._trace = system.run.trace

    async def give(self) -> None:
        """All donors, to their ends. Raises NotServed."""
        await asyncio.gather(*(self._donor(each) for each in self._plans))

    async def _donor(self, donor: Plan) -> None:
        await asyncio.sleep(donor.arrives_s)
        tally = self.workload.tally
        tally.started += 1
        pledge = await self._pledge(donor)
        tally.pledged += 1
        if donor.then == "cancel":
            await asyncio.sleep(donor.pause_s)
            await self._post(donor, f"/v1/pledges/{pledge}/cancel", "cancel", {}, {200, 409})
            return
        url = await self._checkout(pledge)
        if url is None:
            return
        if donor.then == "cancel_late":
            await self._post(donor, f"/v1/pledges/{pledge}/cancel", "cancel", {}, {200, 409})
        await asyncio.sleep(donor.pause_s)
        intent = await self._pay(donor, pledge, url)
        if intent is None:
            return
        await asyncio.sleep(donor.pause_s)
        match donor.then:
            case "refund":
                await self._refund(donor, pledge, None)
            case "part":
                await self._refund(donor, pledge, donor.cents // 3)
            case "fails":
                await self._refund(donor, pledge, donor.cents // 2)
            case "dispute_lost" | "dispute_won":
                await self._dispute(donor, intent)

    async def _pledge(self, donor: Plan) -> str:
        body: dict[str, Any] = {"amount": {"currency": "USD", "value": _decimal(donor.cents)}}
        if donor.creator is not None:
            body["creator"] = donor.creator
        if donor.email is not None:
            body["donor"] = {"email": donor.email, "name": f"Donor {donor.number}"}
        made = await self._post(donor, f"/v1/drives/{DRIVE}/pledges", "pledge", body, {201})
        return str(made["id"])

    async def _checkout(self, pledge: str) -> str | None:
        """The address of the checkout; None where the pledge ended before it had one."""
        for _ in range(round(PATIENCE_S / LOOK_S)):
            try:
                reply = await self._request("GET", f"/v1/pledges/{pledge}")
            except ServiceUnavailable:
                reply = None
            if reply is not None and reply.status == 200:
                found = reply.json()
                if found["checkout"]:
                    return str(found["checkout"]["url"])
                if found["status"] in ("lapsed", "cancelled"):
                    return None
            await asyncio.sleep(LOOK_S)
        raise NotServed(f"{pledge} has no checkout after {PATIENCE_S:g} s")

    async def _pay(self, donor: Plan, pledge: str, url: str) -> str | None:
        """Pay at the sandbox; the payment intent, None where the card or the session was refused."""
        path = url.removeprefix("http://sandbox.simulation")
        status, answer = await self._at_sandbox("POST", f"{path}/pay", {"card": donor.card})
        paid = status == 200 and answer.get("payment_status") == "paid"
        self._trace.note(f"donor {donor.number} {'paid' if paid else 'did not pay'} {pledge[-6:]}")
        if not paid:
            self.workload.tally.declined += 1
            return None
        self.workload.tally.paid[pledge] = donor.cents
        if donor.email is not None:
            self.workload.with_email[pledge] = donor.email
        return str(answer["payment_intent"])

    async def _refund(self, donor: Plan, pledge: str, cents: int | None) -> None:
        body = {} if cents is None else {"amount": {"currency": "USD", "value": _decimal(cents)}}
        path = f"/v1/pledges/{pledge}/refunds"
        made = await self._post(donor, path, "refund", body, {201}, again={409})
        tally = self.workload.tally
        tally.refunds += 1
        if donor.card != REFUND_FAILS_CARD and made["status"] != "failed":
            tally.refunded_cents += donor.cents if cents is None else cents

    async def _dispute(self, donor: Plan, intent: str) -> None:
        tally = self.workload.tally
        tally.disputes += 1
        for status in ("needs_response", donor.then.removeprefix("dispute_")):
            code, answer = await self._at_sandbox(
                "POST", "/_sandbox/disputes", {"payment_intent": intent, "status": status}
            )
            if code != 200:
                raise NotServed(f"the sandbox refused a dispute: {answer}")
            await asyncio.sleep(donor.pause_s)
        tally.disputed_cents += donor.cents if donor.then == "dispute_lost" else 0

    async def _post(
        self,
        donor: Plan,
        path: str,
        name: str,
        body: dict[str, Any],
        wanted: set[int],
        again: frozenset[int] | set[int] = frozenset(),
    ) -> Any:
        """POST under one idempotency key until it is answered with a `wanted` status."""
        headers = {"idempotency-key": f"donor-{donor.number}-{name}"}
        last = "nothing"
        for _ in range(round(PATIENCE_S / RETRY_S)):
            try:
                reply = await self._request("POST", path, body, headers)
            except ServiceUnavailable as error:
                last = str(error)
            else:
                if reply.status in wanted:
                    return reply.json()
                last = f"{reply.status} {reply.body.decode()[:200]}"
                if reply.status < 500 and reply.status not in again:
                    break
            await asyncio.sleep(RETRY_S)
        raise NotServed(f"donor {donor.number}: POST {path}: {last}")

    async def _request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> ServiceResponse:
        sent = {"authorization": f"Bearer {ADMIN_KEY}", **(headers or {})}
        raw = b""
        if body is not None:
            raw, sent["content-type"] = json.dumps(body).encode(), "application/json"
        return await self._gateway.request(method, path, headers=sent, body=raw)

    async def _at_sandbox(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        headers = {"content-type": "application/json"}
        raw, status, _ = await self._system.run.sandbox.answer(
            method, path, headers, json.dumps(body).encode()
        )
        return status, json.loads(raw)


def _decimal(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


async def add_milestone(system: System, seed: int) -> None:
    """Add a milestone to the drive, before or after its amount is raised. Raises NotServed."""
    chance = random.Random(f"milestone {seed}")  # noqa: S311 - it has to repeat
    await asyncio.sleep(chance.uniform(0, ARRIVALS_S))
    amount = {"currency": "USD", "value": _decimal(chance.randrange(*MILESTONE_CENTS))}
    body = json.dumps({"milestones": [{"title": "Half way", "amount": amount}]}).encode()
    headers = {
        "authorization": f"Bearer {ADMIN_KEY}",
        "content-type": "application/json",
        "idempotency-key": "milestone",
    }
    for _ in range(round(PATIENCE_S / RETRY_S)):
        try:
            gateway = system.request_client("gateway")
            reply = await gateway.request("PATCH", f"/v1/drives/{DRIVE}", headers=headers, body=body)
        except ServiceUnavailable:
            reply = None
        if reply is not None and reply.status == 200:
            return
        await asyncio.sleep(RETRY_S)
    raise NotServed(f"the milestone was not added in {PATIENCE_S:g} s")


async def open_drive(system: System) -> None:
    """Create and open the drive with its creators; for the template."""
    gateway = system.request_client("gateway")
    headers = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
    requests: list[tuple[str, Any]] = [
        (
            "/v1/drives",
            {
                "slug": DRIVE,
                "title": {"en": "Winter"},
                "currency": "USD",
                "goal": {"currency": "USD", "value": "500.00"},
            },
        ),
        *((f"/v1/drives/{DRIVE}/creators", {"slug": one, "name": one.title()}) for one in CREATORS),
        (f"/v1/drives/{DRIVE}/open", {}),
    ]
    for number, (path, body) in enumerate(requests):
        sent = {**headers, "idempotency-key": f"template-{number}"}
        reply = await gateway.request("POST", path, headers=sent, body=json.dumps(body).encode())
        if reply.status not in (200, 201):
            raise NotServed(f"{path}: {reply.status} {reply.body.decode()}")
