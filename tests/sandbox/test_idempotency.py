"""Idempotency keys, and the faults that make them matter."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import stripe

from tests.sandbox.harness import API_KEY, Donor


def keyed(key: str) -> Any:
    return {"idempotency_key": key}


async def test_the_same_key_and_parameters_give_the_first_answer_again(donor: Donor) -> None:
    wish = donor.wish()
    create = donor.stripe.v1.checkout.sessions.create_async
    first, again = await create(wish, keyed("a.1")), await create(wish, keyed("a.1"))
    assert first.to_dict() == again.to_dict()
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len((await donor.stripe.v1.checkout.sessions.list_async()).data) == 1


async def test_the_same_key_with_other_parameters_or_another_address_is_refused(donor: Donor) -> None:
    create = donor.stripe.v1.checkout.sessions.create_async
    await create(donor.wish(2500), keyed("a.1"))
    with pytest.raises(stripe.IdempotencyError):
        await create(donor.wish(2600), keyed("a.1"))
    with pytest.raises(stripe.IdempotencyError):
        await donor.stripe.v1.refunds.create_async({"payment_intent": "pi_1"}, keyed("a.1"))


async def test_parameters_that_cannot_be_are_not_kept(donor: Donor) -> None:
    create = donor.stripe.v1.checkout.sessions.create_async
    with pytest.raises(stripe.InvalidRequestError):
        await create(donor.wish(0), keyed("a.1"))
    assert (await create(donor.wish(100), keyed("a.1"))).amount_total == 100


async def test_a_refusal_of_the_state_is_kept(donor: Donor) -> None:
    payment = await donor.gift(1000, "4000000000005126")
    wish: Any = {"payment_intent": payment, "amount": 2000}
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError, match="greater than") as refused:
            await donor.stripe.v1.refunds.create_async(wish, keyed("r.1"))
    assert (refused.value.headers or {})["Idempotent-Replayed"] == "true"


async def test_concurrent_requests_with_one_key_act_once(donor: Donor) -> None:
    wish = donor.wish()
    create = donor.stripe.v1.checkout.sessions.create_async
    answers = await asyncio.gather(*(create(wish, keyed("a.1")) for _ in range(8)), return_exceptions=True)
    assert len((await donor.stripe.v1.checkout.sessions.list_async()).data) == 1
    for answer in answers:
        conflict = isinstance(answer, stripe.APIError) and answer.http_status == 409
        assert conflict or isinstance(answer, stripe.checkout.Session)


async def test_an_error_before_acting_is_not_kept(donor: Donor) -> None:
    create = donor.stripe.v1.checkout.sessions.create_async
    wish = donor.wish()
    await donor.faults(error_rate=1)
    with pytest.raises(stripe.APIError) as failed:
        await create(wish, keyed("a.1"))
    assert failed.value.http_status == 500
    await donor.faults()
    assert (await donor.stripe.v1.checkout.sessions.list_async()).data == []
    assert (await create(wish, keyed("a.1"))).status == "open"


async def test_an_error_after_acting_is_replayed_by_its_key_though_the_session_exists(donor: Donor) -> None:
    create = donor.stripe.v1.checkout.sessions.create_async
    wish = donor.wish()
    await donor.faults(error_after_rate=1)
    with pytest.raises(stripe.APIError):
        await create(wish, keyed("a.1"))
    await donor.faults()
    with pytest.raises(stripe.APIError) as replayed:
        await create(wish, keyed("a.1"))
    assert (replayed.value.headers or {})["Idempotent-Replayed"] == "true"
    listed = await donor.stripe.v1.checkout.sessions.list_async()
    assert [session.client_reference_id for session in listed.data] == ["plg_1"]


async def test_an_answer_lost_on_the_way_is_given_to_the_next_request_with_its_key(donor: Donor) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": "r.1"}
    payment = await donor.gift(1000)
    await donor.faults(timeout_after_success_rate=1)
    short = aiohttp.ClientTimeout(total=1.0)
    form = {"payment_intent": payment, "amount": "400"}
    with pytest.raises(TimeoutError):
        await donor.http.post(f"{donor.base}/v1/refunds", data=form, headers=headers, timeout=short)
    await donor.faults()
    async with donor.http.post(f"{donor.base}/v1/refunds", data=form, headers=headers) as response:
        assert response.headers["Idempotent-Replayed"] == "true"
        assert (await response.json())["amount"] == 400
    assert (await donor.books())["USD"]["refunded"] == "4.00"


async def test_requests_beyond_the_rate_limit_get_429(donor: Donor) -> None:
    await donor.faults(rate_limit_per_s=3)
    answers = await asyncio.gather(*(donor.session() for _ in range(10)), return_exceptions=True)
    limited = [answer for answer in answers if isinstance(answer, stripe.RateLimitError)]
    assert 6 <= len(limited) <= 7
    assert "rate_limit" in str(limited[0].http_body)
    await donor.faults()
    assert len((await donor.stripe.v1.checkout.sessions.list_async()).data) == 10 - len(limited)


@pytest.mark.parametrize(
    "wish",
    [
        {"error_rate": 1.5}, {"error_rate": "0.1"}, {"reorder": 1}, {"duplicate": 0}, {"duplicate": 1.5},
        {"delay_ms": -1}, {"rate_limit_per_s": 0}, {"unknown": 1}, {"drop_rate": True}, [], "x",
    ],
)  # fmt: skip
async def test_faults_wished_wrongly_change_nothing(donor: Donor, wish: object) -> None:
    await donor.faults(duplicate=2)
    assert (await donor.post("/_sandbox/faults", wish))[0] == 422
    assert (await donor.get("/_sandbox/faults"))["duplicate"] == 2


async def test_faults_replace_each_other_whole(donor: Donor) -> None:
    await donor.faults(duplicate=3, reorder=True, delay_ms=20)
    await donor.faults(drop_rate=0.5)
    shown = await donor.get("/_sandbox/faults")
    assert (shown["duplicate"], shown["reorder"], shown["delay_ms"], shown["drop_rate"]) == (1, False, 0, 0.5)
