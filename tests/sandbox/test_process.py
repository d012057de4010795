"""The sandbox as a process: kills and restarts, the end of its parent, invalid settings."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import stripe

from tests.sandbox.harness import API_KEY, SECRET, Donor, Receiver
from tests.waiting import PATIENCE_S, until

Process = asyncio.subprocess.Process
Start = Callable[..., Awaitable[tuple[Process, Donor]]]


async def spawn(*arguments: str, largest_file: int | None = None) -> Process:
    """`python -m sandbox` with pipes and without the ATAA settings of the test run.

    `largest_file` in bytes stands for a disk that is full beyond it.
    """
    pipe = asyncio.subprocess.PIPE
    bare = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    program = (sys.executable, "-m", "sandbox", *arguments)
    if largest_file is not None:
        program = ("prlimit", f"--fsize={largest_file}", *program)
    return await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe, stderr=pipe, env=bare)


@pytest.fixture
async def start(receiver: Receiver) -> AsyncIterator[Start]:
    """Starts sandbox processes, each with a client; kills them at the end."""
    started: list[Process] = []
    async with AsyncExitStack() as stack:

        async def started_with(*arguments: str, largest_file: int | None = None) -> tuple[Process, Donor]:
            settings = ("--webhook-url", receiver.url, "--webhook-secret", SECRET, "--api-key", API_KEY)
            process = await spawn("--port", "0", *settings, *arguments, largest_file=largest_file)
            started.append(process)
            assert process.stdout is not None
            base = (await process.stdout.readline()).decode().split()[-1]
            http = await stack.enter_async_context(aiohttp.ClientSession())
            client = stripe.StripeClient(
                API_KEY, base_addresses={"api": base}, http_client=stripe.AIOHTTPClient(session=http)
            )
            return process, Donor(base, client, http)

        yield started_with
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def test_books_keys_and_pending_webhooks_survive_a_kill(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    process, donor = await start("--data", str(tmp_path / "sandbox.db"))
    paid = await donor.donate(2500)
    await until(lambda: len(receiver.events) == 2)
    receiver.status = 500
    await donor.refund(paid, 700)
    unpaid, session_params = await donor.session(1000), donor.session_params(300)
    kept = await donor.stripe.v1.checkout.sessions.create_async(session_params, {"idempotency_key": "a.1"})
    await donor.donate(4000, "4000000000000259")
    paid_out = (await donor.post("/_sandbox/payouts", {}))[1]["data"]
    books = await donor.books()
    process.kill()
    await process.wait()

    receiver.status = 200
    receiver.events.clear()
    _, donor = await start("--data", str(tmp_path / "sandbox.db"))
    assert {**await donor.books(), "USD": books["USD"]} == books
    again = await donor.stripe.v1.checkout.sessions.create_async(session_params, {"idempotency_key": "a.1"})
    assert again.id == kept.id
    assert (await donor.pay(unpaid.id))["payment_status"] == "paid"
    due = {"refund.created", "refund.updated", "charge.refunded", "charge.dispute.created"}
    due |= {"payment_intent.succeeded", "checkout.session.completed", "payout.created", "payout.paid"}
    await until(lambda: due <= set(receiver.types))
    assert (await donor.books())["USD"]["captured"] == "75.00"
    payout = await donor.stripe.v1.payouts.retrieve_async(paid_out[0]["id"])
    assert (payout.amount, payout.status) == (paid_out[0]["amount"], "paid")


async def test_every_response_before_a_kill_holds_after_it(start: Start, tmp_path: Path) -> None:
    process, donor = await start("--data", str(tmp_path / "sandbox.db"))
    answer: list[str] = []

    async def give_until_killed() -> None:
        while True:
            try:
                answer.append(await donor.donate(100))
            except (aiohttp.ClientError, stripe.APIConnectionError):
                return

    donors = [asyncio.create_task(give_until_killed()) for _ in range(8)]
    await until(lambda: len(answer) >= 60)
    process.kill()
    await asyncio.gather(*donors)
    _, donor = await start("--data", str(tmp_path / "sandbox.db"))
    for payment in answer:
        intent = await donor.stripe.v1.payment_intents.retrieve_async(payment)
        assert intent.status == "succeeded"
    assert float((await donor.books())["USD"]["captured"]) >= len(answer)


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="no prlimit on this machine")
async def test_full_disk_is_reported_and_loses_no_response(start: Start, tmp_path: Path) -> None:
    data = str(tmp_path / "sandbox.db")
    process, donor = await start("--data", data, largest_file=600_000)
    opened: list[str] = []
    with pytest.raises(stripe.APIError) as failed:
        while True:
            opened.append((await donor.session()).id)
    assert failed.value.http_status == 500
    process.kill()
    assert process.stderr is not None
    errors = (await process.stderr.read()).decode()
    assert "POST /v1/checkout/sessions failed" in errors
    assert "Traceback" not in errors
    _, donor = await start("--data", data)
    listed = await donor.stripe.v1.checkout.sessions.list_async({"limit": 100})
    assert [session.id async for session in listed.auto_paging_iter()] == opened[::-1]


async def test_sigterm_stops_it_cleanly(start: Start) -> None:
    process, donor = await start()
    assert (await donor.get("/livez")) == {"status": "ok"}
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


async def test_it_exits_when_its_parent_dies(start: Start) -> None:
    process, _ = await start("--exit-with-parent")
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0


async def stopped_with(*arguments: str) -> str:
    process = await spawn(*arguments)
    _, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 2
    return errors.decode()


async def test_port_in_use_is_reported_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        errors = await stopped_with("--port", str(port))
    assert errors.count("\n") == 1
    assert f"127.0.0.1:{port} (ATAA_SANDBOX_PORT)" in errors


async def test_unusable_data_file_or_webhook_address_is_reported_in_one_line(tmp_path: Path) -> None:
    errors = await stopped_with("--port", "0", "--data", str(tmp_path / "nowhere" / "sandbox.db"))
    assert errors.count("\n") == 1
    assert "data file" in errors
    errors = await stopped_with("--port", "0", "--webhook-url", "https://example.org/")
    assert errors.count("\n") == 1
    assert "webhook address" in errors


@pytest.mark.parametrize(("option", "value"), [("--port", "abc"), ("--port", "70000")])
async def test_invalid_option_is_reported_in_one_line(option: str, value: str) -> None:
    errors = await stopped_with(option, value)
    assert errors.count("\n") == 1
    assert option in errors
    assert "ATAA_SANDBOX_PORT" in errors


async def test_unknown_option_is_reported_in_one_line() -> None:
    assert (await stopped_with("--nope")).count("\n") == 1


async def test_data_file_is_locked_by_one_process(start: Start, tmp_path: Path) -> None:
    data = str(tmp_path / "sandbox.db")
    await start("--data", data)
    assert "locked" in await stopped_with("--port", "0", "--data", data)
