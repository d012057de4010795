"""The donors: concurrent clients, each making its planned donation exactly once, despite failures.

A donor pledges, waits for the checkout and pays; some use a declined card first, some never pay. Refund
workers make the planned refunds once the pledge is paid.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rehearsal.amounts import as_money
from rehearsal.api_client import ApiClient, NoAnswer, Reply
from rehearsal.curve import Plan
from rehearsal.gifts import GiftPlanner, Outcome, PlannedGift

IN_FLIGHT: Final = 64
REFUND_WORKERS: Final = 8
CHECKOUT_WITHIN_S: Final = 180.0
PAID_WITHIN_S: Final = 60.0
POLL_WAIT_S: Final = 10
REFUND_POLL_WAIT_S: Final = 2
"""Refund workers wait for less long: a change between two reads would cost the whole wait."""
RUSH_LIMIT_S: Final = 600.0
"""The rush ends after this even without the minimum of donations, on a very slow machine."""
_MAX_ERRORS: Final = 50


class Refused(Exception):
    """A request that should have succeeded was refused; the message names it and the reason."""


@dataclass(slots=True)
class Tally:
    """What the donors observed, in cents; `paid` maps pledge ids to the amount paid."""

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
    errors: list[str] = field(default_factory=list)
    error_count: int = 0
    latest_start_s: float = 0.0
    """The longest time that a planned donation waited for a free donor."""

    @property
    def given_cents(self) -> int:
        """The total of the payments that were confirmed to donors."""
        return sum(self.paid.values())

    def record_error(self, error: str) -> None:
        """Count an error; keep the first messages."""
        self.error_count += 1
        if len(self.errors) < _MAX_ERRORS:
            self.errors.append(error)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The donors' credentials: the partner's secret key, and a publishable key with an allowed origin."""

    secret: str
    publishable: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class LoadProfile:
    """The load: `rush_s` seconds at full speed after the curve, longer until `least_gifts` are paid."""

    rush_s: float
    least_gifts: int
    in_flight: int = IN_FLIGHT


class ArrivalQueue:
    """Hands out planned donations: on the curve at their times, in the rush as fast as they are taken."""

    def __init__(self, plan: Plan, planner: GiftPlanner, load: LoadProfile, tally: Tally) -> None:
        self._plan = plan
        self._planner = planner
        self._load = load
        self._tally = tally
        self._started_at = time.monotonic()
        self._rush_started_at: float | None = None
        self._next = 0

    async def take(self) -> PlannedGift | None:
        """The next planned donation once it is due; None when the rehearsal is over."""
        arrivals = self._plan.arrivals
        if self._next < len(arrivals):
            number, self._next = self._next, self._next + 1
            await self._until(arrivals[number].at_s)
            late_s = time.monotonic() - self._started_at - arrivals[number].at_s
            self._tally.latest_start_s = max(self._tally.latest_start_s, late_s)
            return self._planner.planned_gift(number)
        await self._until(arrivals[-1].at_s if arrivals else 0.0)
        if self._over():
            return None
        number, self._next = self._next, self._next + 1
        return self._planner.planned_gift(number)

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, self._started_at + at_s - time.monotonic()))

    def _over(self) -> bool:
        now = time.monotonic()
        self._rush_started_at = self._rush_started_at or now
        rushed_s = now - self._rush_started_at
        enough = len(self._tally.paid) >= self._load.least_gifts
        return rushed_s >= RUSH_LIMIT_S or (enough and rushed_s >= self._load.rush_s)


class Donors:
    """All donors and refund workers of one rehearsal of `drive`; `tally` is always current."""

    def __init__(
        self,
        api: ApiClient,
        drive: str,
        credentials: Credentials,
        load: LoadProfile,
        *,
        paid_within_s: float = PAID_WITHIN_S,
    ) -> None:
        self.tally = Tally()
        self._paid_within_s = paid_within_s
        self._api = api
        self._drive = drive
        self._credentials = credentials
        self._load = load
        self._publishable_works = credentials.publishable is not None
        self._refund_queue: asyncio.Queue[tuple[PlannedGift, str, str] | None] = asyncio.Queue()

    async def donate_all(self, plan: Plan, planner: GiftPlanner) -> None:
        """Replay the plan; returns when the last donor has finished and the last refund was answered."""
        queue = ArrivalQueue(plan, planner, self._load, self.tally)
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self.process_refunds()) for _ in range(REFUND_WORKERS)]
            donors = [group.create_task(self._donor(queue)) for _ in range(self._load.in_flight)]
            for donor in donors:
                await donor
            self.finish_refunds(len(workers))

    async def _donor(self, queue: ArrivalQueue) -> None:
        while (planned_gift := await queue.take()) is not None:
            try:
                await self.donate(planned_gift)
            except (NoAnswer, Refused) as error:
                self.tally.record_error(f"donation {planned_gift.number}: {error}")

    async def donate(self, planned_gift: PlannedGift) -> None:
        """Make one donation from pledge to payment. Raises NoAnswer, Refused."""
        self.tally.started += 1
        pledge = await self._pledge(planned_gift)
        self.tally.pledged += 1
        pledge_id, token = str(pledge["id"]), str(pledge["token"])
        url = await self._checkout(pledge, pledge_id, token)
        if planned_gift.abandons:
            self.tally.abandoned += 1
            return
        for card in planned_gift.cards:
            if await self._pay(url, card, pledge_id, planned_gift, token):
                self._paid(planned_gift, pledge_id, token)
                return
            self.tally.declined += 1
        raise Refused(f"{pledge_id}: all {len(planned_gift.cards)} cards were declined")

    async def _pledge(self, planned_gift: PlannedGift) -> Mapping[str, Any]:
        path = f"/v1/drives/{self._drive}/pledges"
        headers = {"Idempotency-Key": planned_gift.key, "Prefer": "wait=5"}
        if planned_gift.publishable and self._publishable_works:
            credentials = {
                "Authorization": f"Bearer {self._credentials.publishable}",
                "Origin": self._credentials.origin,
            }
            reply = await self._api.post(path, planned_gift.body, headers | credentials)
            if reply.status == 201:
                return reply.body
            # Refused by authentication, so no pledge was made: continue with the secret key.
            self._publishable_works = reply.status not in (401, 403)
        headers["Authorization"] = f"Bearer {self._credentials.secret}"
        reply = await self._api.post(path, planned_gift.body, headers)
        if reply.status != 201:
            raise Refused(f"pledge: {reply.problem}")
        return reply.body

    async def _checkout(self, pledge: Mapping[str, Any], pledge_id: str, token: str) -> str:
        """The address of the payment page; waits for it if the pledge has no checkout yet."""
        give_up = time.monotonic() + CHECKOUT_WITHIN_S
        wait_s = 0
        while pledge.get("checkout") is None:
            if pledge.get("status") not in (None, "open"):
                raise Refused(f"{pledge_id} is {pledge.get('status')} without a checkout")
            if time.monotonic() > give_up:
                raise Refused(f"{pledge_id} had no checkout after {CHECKOUT_WITHIN_S:.0f} s")
            pledge = await self._read_pledge(pledge_id, token, wait_s)
            wait_s = POLL_WAIT_S
        return str(pledge["checkout"]["url"])

    async def _read_pledge(self, pledge_id: str, token: str, wait_s: int) -> Mapping[str, Any]:
        """The pledge, once it has changed or after `wait_s`.

        The first read must not wait: it would miss a change that came before it.
        """
        started = time.monotonic()
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        reply = await self._api.get(f"/v1/pledges/{pledge_id}?token={token}", headers)
        if reply.status != 200:
            raise Refused(f"reading {pledge_id}: {reply.problem}")
        # Prevents a busy loop where the API does not hold its reply.
        await asyncio.sleep(max(0.0, 0.05 - (time.monotonic() - started)))
        return reply.body

    async def _pay(self, url: str, card: str, pledge_id: str, planned_gift: PlannedGift, token: str) -> bool:
        """Whether the card was charged. Raises Refused when the outcome is unknown."""
        try:
            reply = await self._api.post(f"{url}/pay", {"card": card})
        except NoAnswer:
            self.tally.unsure[pledge_id] = planned_gift.amount_cents
            raise
        if reply.status == 200:
            return reply.body.get("payment_status") == "paid"
        if reply.in_doubt and await self._is_paid(pledge_id, token):
            return True
        if reply.status == 402:
            return False
        self.tally.unsure[pledge_id] = planned_gift.amount_cents
        raise Refused(f"paying {pledge_id}: {reply.problem}")

    async def _is_paid(self, pledge_id: str, token: str) -> bool:
        """Whether the pledge becomes paid within a bounded time."""
        give_up = time.monotonic() + self._paid_within_s
        wait_s = 0
        while time.monotonic() < give_up:
            pledge = await self._read_pledge(pledge_id, token, wait_s)
            if pledge.get("status") not in ("open", "lapsed", "cancelled"):
                return True
            wait_s = REFUND_POLL_WAIT_S
        return False

    def _paid(self, planned_gift: PlannedGift, pledge_id: str, token: str) -> None:
        self.tally.paid[pledge_id] = planned_gift.amount_cents
        self.tally.unsure.pop(pledge_id, None)
        if planned_gift.outcome is Outcome.DISPUTE:
            self.tally.disputes += 1
            self.tally.disputed_cents += planned_gift.amount_cents
        elif planned_gift.outcome is not Outcome.NOTHING:
            self._refund_queue.put_nowait((planned_gift, pledge_id, token))

    async def process_refunds(self) -> None:
        """Make the queued refunds, until `finish_refunds`."""
        while (request := await self._refund_queue.get()) is not None:
            planned_gift, pledge_id, token = request
            try:
                await self._refund(planned_gift, pledge_id, token)
            except (NoAnswer, Refused) as error:
                self.tally.record_error(f"refund of donation {planned_gift.number}: {error}")

    def finish_refunds(self, workers: int) -> None:
        """Stop `workers` refund workers after the refunds queued so far."""
        for _ in range(workers):
            self._refund_queue.put_nowait(None)

    async def _refund(self, planned_gift: PlannedGift, pledge_id: str, token: str) -> None:
        if not await self._is_paid(pledge_id, token):
            raise Refused(f"{pledge_id} was charged but is not paid after {self._paid_within_s:.0f} s")
        cents = planned_gift.refund_cents
        body: dict[str, Any] = {"reason": "requested_by_customer"}
        body |= {"amount": as_money(cents)} if cents is not None else {}
        headers = {
            "Authorization": f"Bearer {self._credentials.secret}",
            "Idempotency-Key": f"refund-{planned_gift.key}",
        }
        reply: Reply = await self._api.post(f"/v1/pledges/{pledge_id}/refunds", body, headers)
        if reply.status != 201:
            raise Refused(reply.problem)
        self.tally.refunds += 1
        if planned_gift.outcome is not Outcome.FAILED_REFUND:
            self.tally.refunded_cents += cents if cents is not None else planned_gift.amount_cents
