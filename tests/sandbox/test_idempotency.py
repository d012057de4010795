"""Idempotency keys, under the faults that they protect against."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import stripe

from tests.sandbox.harness import API_KEY, Donor


def keyed(key: str) -> Any:
    return {"idempotency_key": key}


async def test_same_key_and_parameters_replay_the_first_response(donor: Donor) -> None:
    session_params = donor.session_params()
    create = donor.stripe.v1.checkout.sessions.create_async
    first, again = await create(session_params, keyed("a.1")), await create(session_params, keyed("a.1"))
    assert first.to_dict() == again.to_dict()
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len((await donor.stripe.v1.checkout.sessions.list_async()).data) == 1


async def test_same_key_with_other_parameters_or_route_is_refused(donor: Donor) -> None:
    create = donor.stripe.v1.checkout.sessions.create_async
    await create(donor.session_params(2500), keyed("a.1"))
    with pytest.raises(stripe.IdempotencyError):
        await create(donor.session_params(2600), keyed("a.1"))
    with pytest.raises(stripe.IdempotencyError):
        await donor.stripe.v1.refunds.create_async({"payment_intent": "pi_1"}, keyed("a.1"))


async def test_invalid_parameters_are_not_stored(donor: Donor) -> None:
    create = donor.stripe.v1.checkout.sessions.create_async
    with pytest.raises(stripe.InvalidRequestError):
        await create(donor.session_params(0), keyed("a.1"))
    assert (await create(donor.session_params(100), keyed("a.1"))).amount_total == 100


async def test_refusal_by_state_is_stored(donor: Donor) -> None:
    payment = await donor.donate(1000, "4000000000005126")
    session_params: Any = {"payment_intent": payment, "amount": 2000}
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError, match="greater than") as refused:
            await donor.stripe.v1.refunds.create_async(session_params, keyed("r.1"))
    assert (refused.value.headers or {})["Idempotent-Replayed"] == "true"


async def test_concurrent_requests_with_one_key_execute_once(donor: Donor) -> None:
    session_params = donor.session_params()
    create = donor.stripe.v1.checkout.sessions.create_async
    answers = await asyncio.gather(
        *(create(session_params, keyed("a.1")) for _ in range(8)), return_exceptions=True
    )
    assert len((await donor.stripe.v1.checkout.sessions.list_async()).data) == 1
    for answer in answers:
        conflict = isinstance(answer, stripe.APIError) and answer.http_status == 409
        assert conflict or isinstance(answer, stripe.checkout.Session)


async def test_error_before_execution_is_not_stored(donor: Donor) -> None:
    create = donor.stripe.v1.checkout.sessions.create_async
    session_params = donor.session_params()
    await donor.faults(error_rate=1)
    with pytest.raises(stripe.APIError) as failed:
        await create(session_params, keyed("a.1"))
    assert failed.value.http_status == 500
    await donor.faults()
    assert (await donor.stripe.v1.checkout.sessions.list_async()).data == []
    assert (await create(session_params, keyed("a.1"))).status == "open"


async def test_error_after_execution_is_replayed_though_the_session_exists(donor: Donor) -> None:
    create = donor.stripe.v1.checkout.sessions.create_async
    session_params = donor.session_params()
    await donor.faults(error_after_rate=1)
    with pytest.raises(stripe.APIError):
        await create(session_params, keyed("a.1"))
    await donor.faults()
    with pytest.raises(stripe.APIError) as replayed:
        await create(session_params, keyed("a.1"))
    assert (replayed.value.headers or {})["Idempotent-Replayed"] == "true"
    listed = await donor.stripe.v1.checkout.sessions.list_async()
    assert [session.client_reference_id for session in listed.data] == ["plg_1"]


async def test_lost_response_is_replayed_to_the_next_request_with_its_key(donor: Donor) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": "r.1"}
    payment = await donor.donate(1000)
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


async def test_requests_beyond_the_rate_limit_are_answered_429(donor: Donor) -> None:
    await donor.faults(rate_limit_per_s=3)
    answers = await asyncio.gather(*(donor.session() for _ in range(10)), return_exceptions=True)
    limited = [answer for answer in answers if isinstance(answer, stripe.RateLimitError)]
    assert 6 <= len(limited) <= 7
    assert "rate_limit" in str(limited[0].http_body)
    await donor.faults()
    assert len((await donor.stripe.v1.checkout.sessions.list_async()).data) == 10 - len(limited)


@pytest.mark.parametrize(
    "session_params",
    [
        {"error_rate": 1.5}, {"error_rate": "0.1"}, {"reorder": 1}, {"duplicate": 0}, {"duplicate": 1.5},
        {"delay_ms": -1}, {"rate_limit_per_s": 0}, {"unknown": 1}, {"drop_rate": True}, [], "x",
    ],
)  # fmt: skip
async def test_invalid_faults_change_nothing(donor: Donor, session_params: object) -> None:
    await donor.faults(duplicate=2)
    assert (await donor.post("/_sandbox/faults", session_params))[0] == 422
    assert (await donor.get("/_sandbox/faults"))["duplicate"] == 2


async def test_new_faults_replace_all_others(donor: Donor) -> None:
    await donor.faults(duplicate=3, reorder=True, delay_ms=20)
    await donor.faults(drop_rate=0.5)
    shown = await donor.get("/_sandbox/faults")
    assert (shown["duplicate"], shown["reorder"], shown["delay_ms"], shown["drop_rate"]) == (1, False, 0, 0.5)
