"""The donors: so many in flight, each giving exactly what was intended, once, whatever breaks.

A donor pledges, waits for the checkout, pays (some with a declined card first, some never), and leaves.
Behind them a help desk refunds what is to be refunded once the pledge says it was paid.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rehearsal.amounts import as_money
from rehearsal.curve import Plan
from rehearsal.door import Door, NoAnswer, Reply
from rehearsal.gifts import After, Crowd, Intention

IN_FLIGHT: Final = 64
DESK_CLERKS: Final = 8
CHECKOUT_PATIENCE_S: Final = 180.0
PAID_PATIENCE_S: Final = 60.0
LOOK_WAIT_S: Final = 10
DESK_WAIT_S: Final = 2
"""A clerk's look holds less long: a change between two looks would cost the whole wait."""
RUSH_LIMIT_S: Final = 600.0
"""Past this the rush ends even if the least number of gifts was not reached (a very slow machine)."""
_MOST_TROUBLES: Final = 50


class Refused(Exception):
    """A request that should have been accepted was not; the message says which and why."""


@dataclass(slots=True)
class Tally:
    """What the donors themselves know. Cents; `paid` maps pledge ids to what was paid for them."""

    started: int = 0
    pledged: int = 0
    declined: int = 0
    abandoned: int = 0
    paid: dict[str, int] = field(default_factory=dict)
    unsure: dict[str, int] = field(default_factory=dict)
    refunds: int = 0
    refunded_cents: int = 0
    disputed_cents: int = 0
    disputes: int = 0
    troubles: list[str] = field(default_factory=list)
    trouble_count: int = 0

    @property
    def given_cents(self) -> int:
        """All that donors were told they paid."""
        return sum(self.paid.values())

    def note(self, trouble: str) -> None:
        """Remember what went wrong, the first few in words."""
        self.trouble_count += 1
        if len(self.troubles) < _MOST_TROUBLES:
            self.troubles.append(trouble)


@dataclass(frozen=True, slots=True)
class Pass:
    """How the donors enter: the partner's secret key, and its publishable key with an allowed origin."""

    secret: str
    publishable: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast: `rush_s` seconds at full speed after the curve, then on until `least_gifts` are paid."""

    rush_s: float
    least_gifts: int
    in_flight: int = IN_FLIGHT


class Feed:
    """Hands out intentions: on the curve each at its time, in the rush as fast as they are taken."""

    def __init__(self, plan: Plan, crowd: Crowd, pace: Pace, tally: Tally) -> None:
        self._plan = plan
        self._crowd = crowd
        self._pace = pace
        self._tally = tally
        self._started_at = time.monotonic()
        self._rush_started_at: float | None = None
        self._next = 0

    async def take(self) -> Intention | None:
        """The next donor's intention when it is due; None when the rehearsal is over."""
        arrivals = self._plan.arrivals
        if self._next < len(arrivals):
            number, self._next = self._next, self._next + 1
            await self._until(arrivals[number].at_s)
            return self._crowd.intention(number)
        await self._until(arrivals[-1].at_s if arrivals else 0.0)
        if self._over():
            return None
        number, self._next = self._next, self._next + 1
        return self._crowd.intention(number)

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, self._started_at + at_s - time.monotonic()))

    def _over(self) -> bool:
        now = time.monotonic()
        self._rush_started_at = self._rush_started_at or now
        rushed_s = now - self._rush_started_at
        enough = len(self._tally.paid) >= self._pace.least_gifts
        return rushed_s >= RUSH_LIMIT_S or (enough and rushed_s >= self._pace.rush_s)


class Donors:
    """All donors and the help desk of one rehearsal of `drive`; `tally` is up to date at any time."""

    def __init__(
        self,
        door: Door,
        drive: str,
        entry: Pass,
        pace: Pace,
        *,
        paid_patience_s: float = PAID_PATIENCE_S,
    ) -> None:
        self.tally = Tally()
        self._paid_patience_s = paid_patience_s
        self._door = door
        self._drive = drive
        self._entry = entry
        self._pace = pace
        self._publishable_works = entry.publishable is not None
        self._desk: asyncio.Queue[tuple[Intention, str, str] | None] = asyncio.Queue()

    async def give_all(self, plan: Plan, crowd: Crowd) -> None:
        """Replay the plan; returns when the last donor has left and the last refund is answered."""
        feed = Feed(plan, crowd, self._pace, self.tally)
        async with asyncio.TaskGroup() as group:
            clerks = [group.create_task(self.serve_desk()) for _ in range(DESK_CLERKS)]
            seats = [group.create_task(self._donor(feed)) for _ in range(self._pace.in_flight)]
            for seat in seats:
                await seat
            self.close_desk(len(clerks))

    async def _donor(self, feed: Feed) -> None:
        while (intention := await feed.take()) is not None:
            try:
                await self.give(intention)
            except (NoAnswer, Refused) as trouble:
                self.tally.note(f"gift {intention.number}: {trouble}")

    async def give(self, intention: Intention) -> None:
        """One donor from pledge to payment. Raises NoAnswer, Refused."""
        self.tally.started += 1
        pledge = await self._pledge(intention)
        self.tally.pledged += 1
        pledge_id, token = str(pledge["id"]), str(pledge["token"])
        url = await self._checkout(pledge, pledge_id, token)
        if intention.abandons:
            self.tally.abandoned += 1
            return
        for card in intention.cards:
            if await self._pay(url, card, pledge_id, intention, token):
                self._paid(intention, pledge_id, token)
                return
            self.tally.declined += 1
        raise Refused(f"no card of {len(intention.cards)} was taken for {pledge_id}")

    async def _pledge(self, intention: Intention) -> Mapping[str, Any]:
        path = f"/v1/drives/{self._drive}/pledges"
        headers = {"Idempotency-Key": intention.key, "Prefer": "wait=5"}
        if intention.publishable and self._publishable_works:
            entry = {"Authorization": f"Bearer {self._entry.publishable}", "Origin": self._entry.origin}
            reply = await self._door.post(path, intention.body, headers | entry)
            if reply.status == 201:
                return reply.body
            # Refused at the door, so nothing was promised: the partner's server may ask instead.
            self._publishable_works = reply.status not in (401, 403)
        headers["Authorization"] = f"Bearer {self._entry.secret}"
        reply = await self._door.post(path, intention.body, headers)
        if reply.status != 201:
            raise Refused(f"pledge: {reply.problem}")
        return reply.body

    async def _checkout(self, pledge: Mapping[str, Any], pledge_id: str, token: str) -> str:
        """The address to pay at, waited for if the pledge came without."""
        give_up = time.monotonic() + CHECKOUT_PATIENCE_S
        wait_s = 0
        while pledge.get("checkout") is None:
            if pledge.get("status") not in (None, "open"):
                raise Refused(f"{pledge_id} is {pledge.get('status')} without a checkout")
            if time.monotonic() > give_up:
                raise Refused(f"{pledge_id} had no checkout after {CHECKOUT_PATIENCE_S:.0f} s")
            pledge = await self._look(pledge_id, token, wait_s)
            wait_s = LOOK_WAIT_S
        return str(pledge["checkout"]["url"])

    async def _look(self, pledge_id: str, token: str, wait_s: int) -> Mapping[str, Any]:
        """The pledge, once it changed or `wait_s` later.

        The first look must not wait: a change that came before it would be waited for in vain.
        """
        started = time.monotonic()
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        reply = await self._door.get(f"/v1/pledges/{pledge_id}?token={token}", headers)
        if reply.status != 200:
            raise Refused(f"reading {pledge_id}: {reply.problem}")
        # A door that does not hold its reply must not be asked in a busy loop.
        await asyncio.sleep(max(0.0, 0.05 - (time.monotonic() - started)))
        return reply.body

    async def _pay(self, url: str, card: str, pledge_id: str, intention: Intention, token: str) -> bool:
        """Whether the card was taken. Raises Refused when nobody can tell."""
        try:
            reply = await self._door.post(f"{url}/pay", {"card": card})
        except NoAnswer:
            self.tally.unsure[pledge_id] = intention.amount_cents
            raise
        if reply.status == 200:
            return reply.body.get("payment_status") == "paid"
        if reply.in_doubt and await self._is_paid(pledge_id, token):
            return True
        if reply.status == 402:
            return False
        self.tally.unsure[pledge_id] = intention.amount_cents
        raise Refused(f"paying {pledge_id}: {reply.problem}")

    async def _is_paid(self, pledge_id: str, token: str) -> bool:
        """Whether the installation hears of the payment within a bounded wait."""
        give_up = time.monotonic() + self._paid_patience_s
        wait_s = 0
        while time.monotonic() < give_up:
            pledge = await self._look(pledge_id, token, wait_s)
            if pledge.get("status") not in ("open", "lapsed", "cancelled"):
                return True
            wait_s = DESK_WAIT_S
        return False

    def _paid(self, intention: Intention, pledge_id: str, token: str) -> None:
        self.tally.paid[pledge_id] = intention.amount_cents
        self.tally.unsure.pop(pledge_id, None)
        if intention.after is After.DISPUTE:
            self.tally.disputes += 1
            self.tally.disputed_cents += intention.amount_cents
        elif intention.after is not After.NOTHING:
            self._desk.put_nowait((intention, pledge_id, token))

    async def serve_desk(self) -> None:
        """One clerk: refunds whoever asks, until the desk closes."""
        while (case := await self._desk.get()) is not None:
            intention, pledge_id, token = case
            try:
                await self._refund(intention, pledge_id, token)
            except (NoAnswer, Refused) as trouble:
                self.tally.note(f"refund of gift {intention.number}: {trouble}")

    def close_desk(self, clerks: int) -> None:
        """Let `clerks` go once all who asked so far have been served."""
        for _ in range(clerks):
            self._desk.put_nowait(None)

    async def _refund(self, intention: Intention, pledge_id: str, token: str) -> None:
        if not await self._is_paid(pledge_id, token):
            raise Refused(f"{pledge_id} was paid and is not after {self._paid_patience_s:.0f} s")
        cents = intention.refund_cents
        body: dict[str, Any] = {"reason": "requested_by_customer"}
        body |= {"amount": as_money(cents)} if cents is not None else {}
        headers = {
            "Authorization": f"Bearer {self._entry.secret}",
            "Idempotency-Key": f"refund-{intention.key}",
        }
        reply: Reply = await self._door.post(f"/v1/pledges/{pledge_id}/refunds", body, headers)
        if reply.status != 201:
            raise Refused(reply.problem)
        self.tally.refunds += 1
        if intention.after is not After.FAILED_REFUND:
            self.tally.refunded_cents += cents if cents is not None else intention.amount_cents
