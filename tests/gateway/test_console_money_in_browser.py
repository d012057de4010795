"""The console's pages of money in a real Chromium, filled: offline gifts to payouts, in both languages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from gateway.console.client import ServiceCalls
from gateway.console.proposal_texts import PROPOSALS_AR, PROPOSALS_EN
from gateway.console.texts import CONSOLE_AR, CONSOLE_EN
from tests.gateway.harness import ADMIN, bearer
from tests.gateway.screens import faults
from tests.gateway.test_console_in_browser import log_in, window
from tests.gateway.test_pages_in_browser import FLAGS, chromium_path
from tests.gateway.whole_system import WholeSystem, whole_system
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

expect.set_options(timeout=PATIENCE_S * 1_000)

HOSTILE: Final = """<img src=x onerror="document.title='owned'"> بنك الأمل"""
WORKERS: Final = ("leaderboard", "pledges", "payments")
TYPED: Final = {"quantity": "3", "unit": "box", "evidence": "x"}
PAYMENT: Final = "pay_01frtz5n00000000000000000d"


def usd(value: str) -> dict[str, str]:
    return {"currency": "USD", "value": value}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path_factory.mktemp("money"), workers_of=WORKERS) as found:
        await fill(found)
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium_path(), args=FLAGS)
        yield launched
        await launched.close()


async def send(system: WholeSystem, path: str, body: Any, key: str = ADMIN, method: str = "POST") -> Any:
    headers = {**bearer(key), "Idempotency-Key": sha256(f"{path}{body}".encode()).hexdigest()}
    url = f"{system.url}/v1/{path}"
    async with system.session.request(method, url, json=body, headers=headers) as reply:
        assert reply.status in (200, 201), await reply.text()
        return await reply.json()


async def fill(system: WholeSystem) -> None:
    """A drive with two beneficiaries, gifts in every state, pools, hours, and a disbursement."""
    shares = [
        {"name": HOSTILE[:60], "share_bps": 6_250}, {"name": "Clean Water", "share_bps": 3_750},
    ]  # fmt: skip
    title = {"en": "Tents for families", "ar": "خيام للعائلات"}
    drive = {
        "slug": "aid", "title": title, "currency": "USD", "goal": usd("50000.00"), "beneficiaries": shares,
    }  # fmt: skip
    await send(system, "drives", drive)
    await send(system, "drives/aid/open", {})
    await send(system, "drives/aid/creators", {"slug": "nour", "name": "نور"})
    scopes = ["drives", "offline", "ledger"]
    made = await send(system, "keys", {"kind": "secret", "partner": "default", "scopes": scopes})
    second = made["key"]
    pools = (
        {"sponsor": "Acme", "cap": usd("5000.00"), "ratio": "1.00", "ends_at": "2090-01-01T00:00:00Z"},
        {"sponsor": HOSTILE[:90], "cap": usd("100.00"), "ratio": "0.50", "creator": "nour"},
        {"sponsor": "بنك الأمل", "cap": usd("700.00"), "ratio": "2.00", "starts_at": "2090-01-01T00:00:00Z"},
        {"sponsor": "Ended", "cap": usd("70.00"), "ratio": "0.10", "per_gift_cap": usd("5.00")},
        {"sponsor": "Small", "cap": usd("10.00"), "ratio": "1.00"},
    )
    for pool in pools:
        kept = await send(system, "drives/aid/matching-pools", pool)
        if pool["sponsor"] == "Ended":
            await send(system, f"matching-pools/{kept['id']}/end", {})
    gift = {
        "method": "bank", "received_at": "2022-01-07T09:30:00Z", "evidence": f"{HOSTILE}, line 17",
        "creator": "nour",
    }  # fmt: skip
    gifts = [
        (await send(system, "drives/aid/offline-gifts", {**gift, "amount": usd(f"{1_500 + n}.00")}))["id"]
        for n in range(6)
    ]
    await decide(system, second, gifts[0], "approve")
    await decide(system, second, gifts[1], "approve")
    await decide(system, ADMIN, gifts[1], "reverse")
    await decide(system, second, gifts[2], "approve")
    await decide(system, second, gifts[2], "reverse")
    await decide(system, ADMIN, gifts[3], "reject", reason=HOSTILE)
    theirs = {**gift, "amount": usd("12.50"), "method": "cash"}
    await send(system, "drives/aid/offline-gifts", theirs, second)
    hours = {"kind": "hours", "quantity": "12.5", "unit": "hour", "label": "Packing", "evidence": "Rota"}
    worked = await send(system, "drives/aid/contributions", hours)
    await send(system, f"contributions/{worked['id']}/approve", {}, second)
    goods = {**hours, "kind": "goods", "unit": "بطانية", "quantity": "300", "label": HOSTILE}
    await send(system, "drives/aid/contributions", goods, second)

    async def owes() -> bool:
        answer = await send(system, "drives/aid/statement", None, method="GET")
        return float(answer["currencies"][0]["owed"][1]["amount"]["value"]) > 900

    await until(owes)
    paid = {
        "beneficiary": "Clean Water", "amount": usd("800.00"), "paid_at": "2022-02-01T09:30:00Z",
        "reference": "Transfer 4", "evidence": HOSTILE,
    }  # fmt: skip
    done = await send(system, "drives/aid/disbursements", paid)
    await send(system, f"disbursements/{done['id']}/approve", {}, second)
    await send(system, "drives/aid/disbursements", {**paid, "amount": usd("100.00")}, second)


async def decide(system: WholeSystem, key: str, gift: str, action: str, **body: str) -> None:
    await send(system, f"offline-gifts/{gift}/{action}", body, key)


PAGES: Final = (
    "offline", "offline?state=approved", "offline?state=rejected", "offline?state=reversal_requested",
    "contributions", "contributions?state=approved", "matching", "beneficiaries",
    "beneficiaries?state=approved", "ledger", "statement",
)  # fmt: skip


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_filled_pages_fit_every_width_and_axe_finds_nothing_serious(
    system: WholeSystem, chromium: Browser, lang: str
) -> None:
    async with window(chromium) as (_, page):
        await log_in(page, system, query=f"?lang={lang}")
        found = []
        for address in PAGES:
            joint = "&" if "?" in address else "?"
            await page.goto(f"{system.url}/console/drives/aid/{address}{joint}lang={lang}")
            await expect(page.locator("h1")).to_be_visible()
            found += await faults(page, f"money-{address.replace('?state=', '-')}", lang)
            for one in await page.locator("details").all():
                await one.evaluate("(details) => (details.open = true)")
            found += await faults(page, f"money-{address.replace('?state=', '-')}-open", lang)
            assert await page.title() != "owned"
            assert await page.locator("img[src=x]").count() == 0
        assert found == []


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_gift_is_recorded_by_a_person_and_waits_for_another_key(
    system: WholeSystem, chromium: Browser, lang: str
) -> None:
    texts = PROPOSALS_AR if lang == "ar" else PROPOSALS_EN
    async with window(chromium) as (_, page):
        await log_in(page, system, query=f"?lang={lang}")
        await page.goto(f"{system.url}/console/drives/aid/offline?lang={lang}")
        await page.locator("summary", has_text=str(texts["record_offline"])).click()
        await page.fill("#amount", "٤٢٫٥٠" if lang == "ar" else "42.50")
        await page.fill("#received_at", "2022-01-07T09:30")
        await page.fill("#evidence", f"by hand, {lang}")
        await page.get_by_role("button", name=str(texts["record_offline"])).click()
        await expect(page.locator("[role=status]")).to_have_text(str(texts["done_recorded"]))
        card = page.locator(".card", has_text=f"by hand, {lang}")
        await expect(card).to_contain_text(str(texts["own_pending"]))
        await expect(card).to_contain_text("42.50")
        await expect(card.get_by_text(str(texts["approve"]), exact=True)).to_have_count(0)


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_form_filled_in_before_the_session_ended_comes_back(
    system: WholeSystem, chromium: Browser, lang: str
) -> None:
    texts = CONSOLE_AR if lang == "ar" else CONSOLE_EN
    proposals = PROPOSALS_AR if lang == "ar" else PROPOSALS_EN
    async with window(chromium) as (context, page):
        await log_in(page, system, query=f"?lang={lang}")
        await page.goto(f"{system.url}/console/drives/aid/contributions?lang={lang}")
        await page.locator("summary", has_text=str(proposals["record_contributions"])).click()
        for field, value in (
            ("quantity", "3"),
            ("unit", "box"),
            ("label", f"kept {lang}"),
            ("evidence", "x"),
        ):
            await page.fill(f"#{field}", value)
        await context.clear_cookies()
        await page.get_by_role("button", name=str(proposals["record_contributions"])).click()
        found = await faults(page, "carried-login", lang)
        await page.fill("#key", ADMIN)
        await page.keyboard.press("Enter")
        await expect(page.locator("[role=alert]")).to_have_text(str(texts["refused_session_ended"]))
        await expect(page.locator("dl")).to_contain_text(f"kept {lang}")
        found += await faults(page, "carried-form", lang)
        assert f"kept {lang}" not in page.url
        await page.get_by_role("button", name=str(texts["send_again"])).click()
        await expect(page.locator("[role=status]")).to_have_text(str(proposals["done_recorded"]))
        await expect(page.locator(".card", has_text=f"kept {lang}")).to_have_count(1)
        assert found == []


PAID: Final[dict[str, Any]] = {
    "id": PAYMENT, "pledge": "plg_01frtz5n00000000000000000c", "creator": None, "status": "captured",
    "held": {"reason": "other_amount", "since": "2030-01-07T18:00:00.000Z"}, "pledged": usd("25.00"),
    "captured": usd("26.00"), "refunded": usd("0.00"), "disputed": usd("0.00"), "fee": usd("1.05"),
    "payout": "po_1PbCdE", "captured_at": "2030-01-07T18:00:00.000Z",
    "facts": [
        {
            "kind": "capture", "id": "pi_3PqM2b", "amount": usd("26.00"), "status": "succeeded",
            "at": "2030-01-07T18:00:00.000Z",
        }
    ],
    "postings": [
        {
            "number": 1, "at": "2030-01-07T18:00:00.000Z", "debit": "processor_clearing", "credit": "held",
            "amount": usd("26.00"), "cause": "pi_3PqM2b#1", "payment": PAYMENT,
        }
    ],
    "decisions": [
        {
            "kind": "release", "by": {"key": "key_admin", "partner": "default"}, "note": HOSTILE,
            "at": "2030-01-07T18:00:00.000Z",
        }
    ],
}  # fmt: skip
LARGE: Final[list[dict[str, Any]]] = [
    {
        "id": f"rfd_01frtz5n00000000000000000{n}", "status": status, "amount": usd("25000.00"),
        "payment": PAYMENT, "pledge": "plg_01frtz5n00000000000000000c", "drive": None, "reason": HOSTILE,
        "approval": {
            "state": state, "requested_by": by, "requested_at": "2030-01-07T18:00:00.000Z",
            "decided_by": decided, "decided_at": decided and "2030-01-08T09:00:00.000Z", "reason": decided,
        },
    }
    for n, (state, status, by, decided) in enumerate(
        (
            ("needed", "pending", "key_01frtz5n00000000000000000g", None),
            ("needed", "pending", "key_admin", None),
            ("approved", "succeeded", "key_01frtz5n00000000000000000g", "key_admin"),
            ("rejected", "failed", "key_01frtz5n00000000000000000g", "key_01frtz5n00000000000000000g"),
        )
    )
]  # fmt: skip
PAYOUTS: Final = [
    {
        "id": f"po_{n}", "amount": usd("1250.00"), "arrival_date": "2026-11-30", "status": "paid",
        "reconciled": difference == "0.00", "difference": difference and usd(difference), "payments": 52,
        "created_at": "2026-11-28T06:00:00Z",
    }
    for n, difference in enumerate(("0.00", "-3.10", None))
]  # fmt: skip


@pytest.mark.parametrize("lang", ["en", "ar"])
async def test_payment_payouts_and_refunds_fit_too(
    system: WholeSystem, chromium: Browser, lang: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = ServiceCalls.get

    async def answer(calls: ServiceCalls, bearer: Any, service: str, path: str, **query: Any) -> Any:
        if path == "/v1/payouts":
            return {"data": PAYOUTS, "next": None}
        if path == f"/v1/payments/{PAYMENT}":
            drive = await get(calls, bearer, "pledges", "/v1/drives/aid")
            return {**PAID, "drive": drive["id"], "large_refunds": LARGE}
        if path == "/v1/refunds":
            state = query["approval"]
            return {"data": [one for one in LARGE if one["approval"]["state"] == state], "next": None}
        if path == "/v1/payments" and query.get("pledge"):
            return {"data": [PAID, PAID], "next": None}
        return await get(calls, bearer, service, path, **query)

    monkeypatch.setattr(ServiceCalls, "get", answer)
    async with window(chromium) as (_, page):
        await log_in(page, system, query=f"?lang={lang}")
        found = []
        for name, address in (
            ("payouts", "payouts?"), ("payment", f"payments/{PAYMENT}?"),
            ("payments", f"payments?id={PAID['pledge']}&"), ("refunds", "refunds?"),
            ("refunds-approved", "refunds?state=approved&"), ("refunds-rejected", "refunds?state=rejected&"),
        ):  # fmt: skip
            await opened(page, f"{system.url}/console/{address}lang={lang}")
            found += await faults(page, f"money-{name}", lang)
        assert await page.title() != "owned"
        assert found == []


async def opened(page: Page, address: str) -> None:
    await page.goto(address)
    for one in await page.locator("details").all():
        await one.evaluate("(details) => (details.open = true)")


async def test_statement_prints_without_the_console(system: WholeSystem, chromium: Browser) -> None:
    async with window(chromium) as (_, page):
        await log_in(page, system)
        await page.goto(f"{system.url}/console/drives/aid/statement?lang=en")
        await page.emulate_media(media="print")
        for hidden in (".bar", ".tabs", ".trail", ".unprinted >> nth=0"):
            await expect(page.locator(hidden)).to_be_hidden()
        await expect(page.locator("table")).to_be_visible()
        await expect(page.get_by_text("Tents for families").last).to_be_visible()
