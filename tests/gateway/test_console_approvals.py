"""The console's pages of offline gifts, hours and goods, and disbursements, with the real services behind."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any, Final

import pytest
import pytest_asyncio

from gateway.console.proposal_texts import PROPOSALS_EN
from gateway.console.texts import CONSOLE_EN
from tests.gateway.console_harness import Browser, hidden_in
from tests.gateway.harness import ADMIN, bearer
from tests.gateway.whole_system import WholeSystem, whole_system
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORKERS: Final = ("leaderboard", "pledges", "payments")
HOSTILE: Final = "<b>Statement</b> & line 17"
GIFT: Final = {"amount": "٢٥", "method": "bank", "received_at": "2022-01-07T09:30", "evidence": HOSTILE}
HOURS: Final = {"kind": "hours", "quantity": "12.5", "unit": "hour", "label": "Packing", "evidence": "Rota"}
PAID: Final = {
    "beneficiary": "Relief", "amount": "10", "paid_at": "2022-02-01T09:30", "reference": "T/4",
    "evidence": HOSTILE,
}  # fmt: skip
TYPED: Final = {"offline": GIFT, "contributions": HOURS, "beneficiaries": PAID}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path_factory.mktemp("approvals"), workers_of=WORKERS) as found:
        usd = {"currency": "USD", "value": "1000.00"}
        shares = [{"name": "Relief", "share_bps": 6_250}, {"name": "Water", "share_bps": 3_750}]
        drive = {
            "slug": "aid", "title": "Aid", "currency": "USD", "goal": usd, "beneficiaries": shares,
        }  # fmt: skip
        for path, body in (("drives", drive), ("drives/aid/open", {})):
            url = f"{found.url}/v1/{path}"
            async with found.session.post(url, json=body, headers=bearer(ADMIN)) as reply:
                assert reply.status in (200, 201), await reply.text()
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def first(system: WholeSystem) -> Browser:
    return await logged_in(system, ADMIN)


@pytest_asyncio.fixture(loop_scope="module")
async def second(system: WholeSystem) -> Browser:
    return await logged_in(system, await new_key(system))


async def new_key(system: WholeSystem) -> str:
    body = {"kind": "secret", "partner": "default", "scopes": ["drives", "offline", "ledger"]}
    async with system.session.post(f"{system.url}/v1/keys", json=body, headers=bearer(ADMIN)) as reply:
        assert reply.status == 201
        key: str = (await reply.json())["key"]
        return key


async def logged_in(system: WholeSystem, key: str) -> Browser:
    browser = _Absolute(system.session, system.url)
    form = {"key": key, "to": "/console"}

    async def opens() -> bool:  # every process reads the keys each second
        reply = await system.session.post(
            f"{system.url}/session", data=form, headers={"Origin": system.url}, allow_redirects=False
        )
        if reply.status == 303:
            browser.cookie = reply.headers["Set-Cookie"].partition(";")[0]
        return reply.status == 303

    await until(opens)
    return browser


class _Absolute(Browser):
    """A browser whose session has no base address."""

    async def get(self, path: str) -> tuple[int, str]:
        return await super().get(self.url + path)

    async def post(self, path: str, fields: Any, **headers: str) -> tuple[int, str, str]:
        return await super().post(self.url + path, fields, **headers)


def address(page: str) -> str:
    return f"/console/drives/aid/{page}"


async def record(browser: Browser, page: str, **changed: str) -> str:
    """Record what `TYPED` has for the page; the id of what was recorded."""
    before = proposals_in((await browser.get(address(page)))[1])
    status, location, html = await browser.submit(address(page), address(page), {**TYPED[page], **changed})
    assert (status, "done=recorded" in location) == (303, True), html
    after = proposals_in((await browser.get(address(page)))[1])
    (made,) = after - before
    return made


def proposals_in(html: str) -> set[str]:
    return set(re.findall(r'name="proposal" value="(\w+)"', html))


async def decide(
    browser: Browser, page: str, proposal: str, action: str, seen: str = "pending", **fields: str
) -> tuple[int, str, str]:
    form = {"proposal": proposal, "action": action, "seen": seen, **fields}
    status, location, html = await browser.submit(address(page), f"{address(page)}/decide", form)
    return status, location, unescape(html)


@pytest.mark.parametrize("page", TYPED)
async def test_what_one_key_records_another_approves(
    system: WholeSystem, first: Browser, second: Browser, page: str
) -> None:
    if page == "beneficiaries":
        await raise_money(first, second)
    proposal = await record(first, page)
    html = unescape((await first.get(address(page)))[1])
    assert str(PROPOSALS_EN["own_pending"]) in html
    assert "<b>Statement" not in (await first.get(address(page)))[1]
    status, _, html = await decide(first, page, proposal, "approve")
    assert (status, str(PROPOSALS_EN["refused_second_approver_needed"]) in html) == (409, True)
    html = unescape((await second.get(address(page)))[1])
    assert str(PROPOSALS_EN["own_pending"]) not in html
    for _ in range(2):  # a double click
        status, location, html = await decide(second, page, proposal, "approve", reason="Seen")
        assert (status, "done=approved" in location) == (303, True), html
    status, html = await first.get(f"{address(page)}?state=approved&lang=ar")
    assert (status, proposal in html, "Seen" in html) == (200, True, True)


async def raise_money(first: Browser, second: Browser) -> None:
    """Have something to pay out."""
    gift = await record(first, "offline", amount="100")
    assert (await decide(second, "offline", gift, "approve"))[0] == 303
    await until(lambda: owes_something(first))


async def owes_something(browser: Browser) -> bool:
    return '<td class="number">$0</td>' not in (await browser.get(address("beneficiaries")))[1]


@pytest.mark.parametrize("page", TYPED)
async def test_rejection_needs_a_reason_and_no_second_key(first: Browser, page: str) -> None:
    proposal = await record(first, page, **({"amount": "0.01"} if page == "beneficiaries" else {}))
    status, _, html = await decide(first, page, proposal, "reject", reason=" ")
    assert (status, str(CONSOLE_EN["refused_422"]) in html) == (422, True)
    status, location, _ = await decide(first, page, proposal, "reject", reason="Returned")
    assert (status, "done=rejected" in location, "state=rejected" in location) == (303, True, True)
    status, _, html = await decide(first, page, proposal, "approve")
    assert (status, str(PROPOSALS_EN["refused_approval_state"]) in html) == (409, True)


@pytest.mark.parametrize("page", ["offline", "beneficiaries"])
async def test_reversal_takes_two_keys_and_a_stale_form_confirms_none(
    first: Browser, second: Browser, page: str
) -> None:
    if page == "beneficiaries":
        await raise_money(first, second)
    proposal = await record(first, page)
    assert (await decide(second, page, proposal, "approve"))[0] == 303
    assert await texts_of(first, page, "approved", proposal, f"confirm_request_reversal_{page}")
    status, location, html = await decide(first, page, proposal, "reverse", "approved")
    assert (status, "done=reversal_requested" in location) == (303, True), html
    # A double click of the request, and the other key's form from before it: neither confirms it.
    status, location, _ = await decide(first, page, proposal, "reverse", "approved")
    assert (status, "done=reversal_requested" in location) == (303, True)
    status, _, html = await decide(second, page, proposal, "reverse", "approved")
    assert (status, str(PROPOSALS_EN["refused_approval_state"]) in html) == (409, True)
    status, _, html = await decide(first, page, proposal, "reverse", "reversal_requested")
    assert (status, str(PROPOSALS_EN["refused_second_approver_needed"]) in html) == (409, True)
    assert await texts_of(first, page, "reversal_requested", proposal, "own_reversal")
    assert await texts_of(second, page, "reversal_requested", proposal, f"confirm_confirm_reversal_{page}")
    status, location, _ = await decide(second, page, proposal, "reverse", "reversal_requested")
    assert (status, "done=reversed" in location) == (303, True)
    assert await texts_of(first, page, "reversed", proposal)


async def texts_of(browser: Browser, page: str, state: str, proposal: str, *keys: str) -> bool:
    """Whether the list of a state shows the proposal and these texts."""
    html = unescape((await browser.get(f"{address(page)}?state={state}"))[1])
    assert f'state={state}" aria-current="true"' in html, html
    return all(text in html for text in (proposal, *(str(PROPOSALS_EN[key]) for key in keys)))


@pytest.mark.parametrize(
    ("page", "changed", "kept"),
    [
        ("offline", {"amount": "1.234"}, 'value="1.234"'),
        ("offline", {"received_at": ""}, "Statement&lt;/b&gt;"),
        ("offline", {"creator": "nobody"}, 'value="nobody"'),
        ("contributions", {"quantity": "0"}, 'value="Packing"'),
        ("beneficiaries", {"amount": "999999"}, 'value="999999"'),
        ("beneficiaries", {"beneficiary": "Nobody"}, 'value="T/4"'),
    ],
)
async def test_refused_form_keeps_what_was_entered(
    first: Browser, page: str, changed: dict[str, str], kept: str
) -> None:
    status, _, html = await first.submit(address(page), address(page), {**TYPED[page], **changed})
    assert status in (409, 422), html
    assert ('role="alert"' in html, kept in html) == (True, True)


async def test_form_sent_twice_records_once(first: Browser) -> None:
    before = proposals_in((await first.get(address("offline")))[1])
    form = {**hidden_in((await first.get(address("offline")))[1]), **GIFT}
    for _ in range(2):
        assert (await first.post(address("offline"), form))[0] == 303
    after = proposals_in((await first.get(address("offline")))[1])
    assert len(after - before) == 1


async def test_decisions_need_the_token_and_an_id_of_the_kind(first: Browser) -> None:
    gift = await record(first, "offline")
    form = {**hidden_in((await first.get(address("offline")))[1]), "proposal": gift, "action": "reject"}
    path = f"{address('offline')}/decide"
    assert (await first.post(path, {**form, "csrf": "x", "reason": "x"}))[0] == 403
    assert (await first.post(path, {**form, "proposal": "../keys"}))[0] == 404
    assert (await first.post(path, {**form, "action": "record"}))[0] == 404
    assert (await first.post(f"{address('contributions')}/decide", form))[0] == 404


async def test_key_without_the_scope_sees_no_link_and_is_refused(system: WholeSystem) -> None:
    body = {"kind": "secret", "partner": "default", "scopes": ["drives"]}
    async with system.session.post(f"{system.url}/v1/keys", json=body, headers=bearer(ADMIN)) as reply:
        browser = await logged_in(system, (await reply.json())["key"])
    html = (await browser.get("/console/drives/aid"))[1]
    assert ("/matching" in html, "/offline" in html, "/ledger" in html) == (True, False, False)
    for page in TYPED:
        assert (await browser.get(address(page)))[0] == 403
