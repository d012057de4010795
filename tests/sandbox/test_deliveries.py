"""Webhook delivery: retries, duplicates, delays, drops, and the record of acknowledgements."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import stripe

from sandbox.deliveries import retry_after_s
from sandbox.server import Options, Sandbox
from sandbox.webhook_client import WebhookClient
from tests.sandbox.harness import API_KEY, SECRET, Donor, Receiver
from tests.waiting import until


async def test_webhook_is_retried_until_acknowledged(donor: Donor, receiver: Receiver) -> None:
    receiver.status = 503
    await donor.donate()
    await until(lambda: len(receiver.events) >= 3)
    assert set(await donor.undelivered()) == {"checkout.session.completed", "payment_intent.succeeded"}
    receiver.status = 204
    await until(donor_has_delivered(donor))
    delivered = await donor.stripe.v1.events.list_async({"delivery_success": True})
    assert [event.pending_webhooks for event in delivered.data] == [0, 0]


def donor_has_delivered(donor: Donor) -> Any:
    async def delivered() -> bool:
        return await donor.undelivered() == []

    return delivered


async def test_unreachable_receiver_gets_every_event_once_reachable(donor: Donor, receiver: Receiver) -> None:
    await receiver.__aexit__()
    payments = [await donor.donate() for _ in range(20)]
    port = int(receiver.url.split(":")[2].split("/")[0])
    async with Receiver(port) as back:
        await until(lambda: len(back.events) >= 40)
        assert {intent["id"] for intent in back.of("payment_intent.succeeded")} == set(payments)
        await until(donor_has_delivered(donor))


async def test_duplicated_events_arrive_that_often_with_one_id(donor: Donor, receiver: Receiver) -> None:
    await donor.faults(duplicate=3)
    await donor.donate()
    await until(lambda: len(receiver.events) == 6)
    assert len({event["id"] for event in receiver.events}) == 2
    assert len((await donor.get("/_sandbox/deliveries"))["data"]) == 2


REFUNDS = ["refund.created", "refund.updated", "refund.failed", "charge.refunded"]


async def test_unsubscribed_events_are_neither_sent_nor_undelivered(donor: Donor, receiver: Receiver) -> None:
    await donor.faults(unsubscribed=REFUNDS)
    await donor.refund(await donor.donate())
    await until(donor_has_delivered(donor))
    assert sorted(receiver.types) == ["checkout.session.completed", "payment_intent.succeeded"]
    every = await donor.stripe.v1.events.list_async({"limit": 100})
    assert {"refund.created", "charge.refunded"} < {event.type for event in every.data}
    assert {event.pending_webhooks for event in every.data} == {0}
    endpoints = await donor.stripe.v1.webhook_endpoints.list_async()
    (endpoint,) = endpoints.data
    assert endpoint.url == receiver.url
    assert "checkout.session.completed" in endpoint.enabled_events
    assert not set(REFUNDS) & set(endpoint.enabled_events)


async def test_endpoint_is_subscribed_to_every_type_by_default(donor: Donor) -> None:
    endpoints = await donor.stripe.v1.webhook_endpoints.list_async()
    assert endpoints.data[0].enabled_events == ["*"]


async def test_unsubscribed_events_stay_unsent_after_a_restart(receiver: Receiver, tmp_path: Path) -> None:
    options = Options(0, receiver.url, SECRET, API_KEY, tmp_path / "sandbox.db")
    async with Sandbox(options) as sandbox, aiohttp.ClientSession() as http:
        client = stripe.StripeClient(
            API_KEY,
            base_addresses={"api": sandbox.base_url},
            http_client=stripe.AIOHTTPClient(session=http),
            max_network_retries=0,
        )
        donor = Donor(sandbox.base_url, client, http)
        await donor.faults(unsubscribed=["payment_intent.succeeded", "checkout.session.completed"])
        await donor.donate()
    async with Sandbox(options) as sandbox:
        await asyncio.sleep(0.5)
    assert receiver.types == []


async def test_unknown_type_cannot_be_unsubscribed(donor: Donor) -> None:
    for wrong in (["refund.invented"], "refund.created", [1]):
        status, answer = await donor.post("/_sandbox/faults", {"unsubscribed": wrong})
        assert (status, "unsubscribed" in answer["error"]["message"]) == (422, True)


async def test_refunds_and_disputes_are_listed_by_time_with_their_intents(donor: Donor) -> None:
    payment = await donor.donate()
    await donor.refund(payment, 100)
    await donor.dispute(payment, "needs_response")
    soon = {"created": {"gte": int(time.time()) - 60}, "expand": ["data.payment_intent"], "limit": 100}
    for path in ("refunds", "disputes"):
        found = await getattr(donor.stripe.v1, path).list_async(soon)
        assert [each.payment_intent.id for each in found.data] == [payment]
        assert found.data[0].payment_intent.metadata.to_dict()["ataa_pledge"].startswith("plg_")
        later = {"created": {"gte": int(time.time()) + 60}}
        assert not (await getattr(donor.stripe.v1, path).list_async(later)).data


async def test_delayed_events_arrive_late(donor: Donor, receiver: Receiver) -> None:
    await donor.faults(delay_ms=300)
    before = time.time()
    await donor.donate()
    await until(lambda: len(receiver.events) == 2)
    assert min(receiver.arrived_at) - before >= 0.3


async def test_reordered_events_arrive_in_another_order(donor: Donor, receiver: Receiver) -> None:
    await donor.faults(reorder=True)
    payments = await asyncio.gather(*(donor.donate() for _ in range(15)))
    await until(lambda: len(receiver.events) == 2 * len(payments))
    listed = await donor.stripe.v1.events.list_async({"limit": 100})
    assert [event["id"] for event in receiver.events] != [event.id for event in listed.data][::-1]


async def test_dropped_events_are_only_listed(donor: Donor, receiver: Receiver) -> None:
    await donor.faults(drop_rate=1)
    await donor.donate()
    await donor.faults()
    await donor.donate()
    await until(lambda: len(receiver.events) == 2)
    assert sorted(await donor.undelivered()) == ["checkout.session.completed", "payment_intent.succeeded"]
    one: Any = {"delivery_success": False, "type": "payment_intent.*"}
    missed = (await donor.stripe.v1.events.list_async(one)).data[0]
    assert missed.id not in {event["id"] for event in receiver.events}
    assert (await donor.stripe.v1.events.retrieve_async(missed.id)).type == "payment_intent.succeeded"


async def test_events_are_filtered_by_type_time_and_cursor(donor: Donor) -> None:
    for _ in range(3):
        await donor.donate()
    lately = {"created": {"gte": int(time.time()) - 60}}
    types: Any = {"types": ["payment_intent.succeeded"], "limit": 2} | lately
    page = await donor.stripe.v1.events.list_async(types)
    assert [event.type async for event in page.auto_paging_iter()] == ["payment_intent.succeeded"] * 3
    newest: Any = {"ending_before": page.data[1].id, "types": ["payment_intent.succeeded"]}
    assert [event.id for event in (await donor.stripe.v1.events.list_async(newest)).data] == [page.data[0].id]
    with pytest.raises(stripe.InvalidRequestError):
        await donor.stripe.v1.events.list_async({"type": "a", "types": ["b"]})


async def test_acknowledgements_are_listed_in_order_with_their_objects(
    donor: Donor, receiver: Receiver
) -> None:
    before = time.time()
    first, second = await donor.donate(), await donor.donate()
    await until(lambda: len(receiver.events) == 4)
    await until(donor_has_delivered(donor))
    page = await donor.get("/_sandbox/deliveries?limit=3")
    rest = await donor.get(f"/_sandbox/deliveries?after={page['next']}")
    rows = page["data"] + rest["data"]
    assert [row["n"] for row in rows] == [1, 2, 3, 4]
    assert {row["payment_intent"] for row in rows} == {first, second}
    assert {row["pledge"] for row in rows} == {"plg_1", "plg_2"}
    assert all(row["session"].startswith("cs_test_") for row in rows)
    assert all(before <= row["acked_at"] <= time.time() for row in rows)
    assert (await donor.get(f"/_sandbox/deliveries?after={rest['next']}"))["data"] == []


def test_retry_pauses_grow_from_a_fifth_of_a_second_to_five_seconds() -> None:
    assert [retry_after_s(attempt) for attempt in (0, 1, 2, 50)] == [0.2, 0.4, 0.8, 5.0]


@pytest.mark.parametrize("url", ["https://example.org/hook", "ftp://x/", "http:///hook", "hook"])
def test_only_http_addresses_can_be_webhook_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="webhook address"):
        WebhookClient(url)
