"""The console over HTTP, with the real services behind it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from backbone import ids
from backbone.http.service_client import ServiceUnavailable
from gateway.console.client import Refused, ServiceCalls
from gateway.console.texts import CONSOLE_EN
from tests.gateway.console_harness import Browser, hidden_in
from tests.gateway.harness import ADMIN, bearer
from tests.gateway.whole_system import WholeSystem, whole_system
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<script>alert(1)</script>"
DRIVE_FORM = {
    "slug": "spring", "title_en": "Spring & <b>tents</b>", "title_ar": "ربيع", "currency": "usd",
    "goal": "١٠٠٠٫٥", "menu": "10, 25 ؛ 50", "ends_at": "2090-01-31T18:00", "description_ar": "خيام",
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeSystem]:
    async with whole_system(tmp_path_factory.mktemp("console")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def admin(system: WholeSystem) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession(system.url) as session:
        browser = Browser(session, system.url)
        await browser.log_in(ADMIN)
        yield browser


async def key_of(system: WholeSystem, partner: str, *scopes: str, **more: Any) -> dict[str, Any]:
    body = {"kind": "secret", "partner": partner, "scopes": scopes, **more}
    async with system.session.post(f"{system.url}/v1/keys", json=body, headers=bearer(ADMIN)) as reply:
        assert reply.status == 201
        found: dict[str, Any] = await reply.json()
        return found


async def read(system: WholeSystem, path: str) -> Any:
    async with system.session.get(system.url + path, headers=bearer(ADMIN)) as reply:
        return await reply.json()


PAGES = (
    "/console", "/console/new", "/console/drives/winter", "/console/drives/winter/edit",
    "/console/drives/winter/pledges", "/console/drives/winter/money", "/console/keys", "/console/webhooks",
)  # fmt: skip
FORMS = (
    "/console/new", "/console/drives/winter/edit", "/console/drives/winter/state",
    "/console/drives/winter/creators", "/console/drives/winter/refunds", "/console/keys",
    "/console/keys/revoke", "/console/webhooks/retry",
)  # fmt: skip


async def test_every_page_is_shown_in_both_languages(admin: Browser) -> None:
    for path in PAGES:
        for lang, direction in (("en", "ltr"), ("ar", "rtl")):
            status, html = await admin.get(f"{path}?lang={lang}")
            assert (status, f'dir="{direction}"' in html) == (200, True), path
            assert "<script>" not in html
            assert " style=" not in html


async def test_without_a_session_every_page_shows_the_login_and_changes_nothing(system: WholeSystem) -> None:
    async with aiohttp.ClientSession(system.url) as session:
        stranger = Browser(session, system.url, "ataa-session=" + "A" * 43)
        for path in PAGES:
            status, html = await stranger.get(path)
            assert (status, 'name="key"' in html) == (401, True), path
        for path in FORMS:
            status, _, html = await stranger.post(path, {"action": "close", "csrf": "x"})
            assert (status, 'name="key"' in html) == (401, True), path
    assert (await read(system, "/v1/drives/winter"))["state"] == "live"


async def test_forged_forms_are_refused_on_every_address(system: WholeSystem, admin: Browser) -> None:
    token = hidden_in((await admin.get("/console"))[1])["csrf"]
    for path in FORMS:
        assert (await admin.post(path, {"action": "close"}))[0] == 403, path
        assert (await admin.post(path, {"action": "close", "csrf": "0" * 64}))[0] == 403, path
        forged = {"Origin": "https://evil.example"}
        assert (await admin.post(path, {"action": "close", "csrf": token}, **forged))[0] == 403, path
    assert (await read(system, "/v1/drives/winter"))["state"] == "live"


async def test_drive_is_created_changed_opened_and_closed(system: WholeSystem, admin: Browser) -> None:
    status, location, html = await admin.submit("/console/new", "/console/new", DRIVE_FORM)
    assert status == 303, html
    drive = await read(system, "/v1/drives/spring")
    assert location == f"/console/drives/{drive['id']}?done=created"
    assert drive["goal"] == {"currency": "USD", "value": "1000.50"}
    assert [one["value"] for one in drive["menu"]] == ["10.00", "25.00", "50.00"]
    assert drive["description"] == {"ar": "خيام"}
    page = f"/console/drives/{drive['id']}"
    shown = (await admin.get(location))[1]
    assert "<b>tents</b>" not in shown
    assert str(CONSOLE_EN["done_created"]) in shown

    edited = {**DRIVE_FORM, "goal": "2000", "title_ar": ""}
    rows = [("milestone_en", "Half"), ("milestone_ar", ""), ("milestone_amount", "1000"),
            ("beneficiary", "A"), ("share", "33.33"), ("beneficiary", "B"), ("share", "٦٦٫٦٧")]  # fmt: skip
    token = hidden_in((await admin.get(f"{page}/edit"))[1])
    status, _, html = await admin.post(f"{page}/edit", [*{**token, **edited}.items(), *rows])
    assert status == 303, html
    drive = await read(system, "/v1/drives/spring")
    assert (drive["goal"]["value"], drive["title"]) == ("2000.00", {"en": "Spring & <b>tents</b>"})
    assert [one["share_bps"] for one in drive["beneficiaries"]] == [3333, 6667]
    assert drive["milestones"][0]["amount"]["value"] == "1000.00"

    for action, state in (("open", "live"), ("pause", "paused"), ("resume", "live"), ("close", "closed")):
        status, location, _ = await admin.submit(page, f"{page}/state", {"action": action})
        assert (status, location) == (303, f"{page}?done={action}")
        assert (await read(system, "/v1/drives/spring"))["state"] == state
    status, _, html = await admin.submit(page, f"{page}/state", {"action": "open"})
    assert (status, 'role="alert"' in html) == (409, True)
    assert (await admin.submit(page, f"{page}/state", {"action": "explode"}))[0] == 422


async def test_saving_an_unchanged_form_changes_nothing(system: WholeSystem, admin: Browser) -> None:
    sent = {
        "slug": "exact", "title": {"fr": "Hiver", "en": "Winter"}, "currency": "KWD",
        "goal": {"currency": "KWD", "value": "5.250"}, "starts_at": "2030-01-01T10:00:30Z", "menu": [],
        "impact": [{"label": "x", "cost": {"currency": "KWD", "value": "1.000"}}],
    }  # fmt: skip
    async with system.session.post(f"{system.url}/v1/drives", json=sent, headers=bearer(ADMIN)) as reply:
        before = await reply.json()
    path = f"/console/drives/{before['id']}/edit"
    status, html = await admin.get(path)
    boxes = ("test", "zakat_eligible")  # not ticked, so a browser does not send them
    found = re.findall(r'name="(\w+)"[^>]* value="([^"]*)"', html)
    fields = {name: value for name, value in found if name not in boxes}
    status, location, _ = await admin.post(path, fields)
    assert (status, location) == (303, f"/console/drives/{before['id']}?done=unchanged")
    await admin.post(path, {**fields, "title_en": "Warm winter"})
    after = await read(system, "/v1/drives/exact")
    assert after == {**before, "title": {"fr": "Hiver", "en": "Warm winter"}}


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("slug", "Not A Slug", "slug"),
        ("goal", HOSTILE, "goal"),
        ("goal", "1e5", "goal"),
        ("goal", "5.001", "goal"),
        ("currency", "ZZZ", ""),
        ("ends_at", "tomorrow", "ends_at"),
        ("menu", "-5", "menu"),
        ("title_en", "x" * 300, "title"),
        ("share", "half", "beneficiaries"),
    ],
)
async def test_wrong_fields_are_named_and_nothing_is_stored(
    system: WholeSystem, admin: Browser, field: str, value: str, named: str
) -> None:
    form = {**DRIVE_FORM, "slug": "wrong", "beneficiary": "A", "share": "100", field: value}
    status, _, html = await admin.submit("/console/new", "/console/new", form)
    assert status == 422
    assert HOSTILE not in html
    assert 'class="error"' in html
    if named in ("slug", "goal", "ends_at"):
        assert re.search(rf'name="{named}"[^>]*aria-invalid', html)
    assert (await read(system, "/v1/drives/wrong"))["status"] == 404


async def test_sent_twice_a_form_creates_one_drive_and_one_creator(
    system: WholeSystem, admin: Browser
) -> None:
    fields = {**hidden_in((await admin.get("/console/new"))[1]), **DRIVE_FORM, "slug": "twice"}
    answers = [await admin.post("/console/new", fields) for _ in range(2)]
    assert [one[0] for one in answers] == [303, 303]
    assert answers[0][1] == answers[1][1]
    page = answers[0][1].partition("?")[0]
    fields = {**hidden_in((await admin.get(page))[1]), "slug": "abo", "name": HOSTILE, "creator_goal": "50"}
    assert [(await admin.post(f"{page}/creators", fields))[0] for _ in range(2)] == [303, 303]
    html = (await admin.get(page))[1]
    assert "&lt;script&gt;" in html
    assert HOSTILE not in html
    _, _, html = await admin.submit(page, f"{page}/creators", {"slug": "abo", "name": "Another"})
    assert str(CONSOLE_EN["refused_slug_taken"]) in html
    assert 'value="Another"' in html


async def test_partner_sees_and_changes_its_own_drives_only(system: WholeSystem) -> None:
    key = await key_of(system, "abo", "drives")
    async with aiohttp.ClientSession(system.url) as session:
        partner = Browser(session, system.url)
        await partner.log_in(key["key"])
        status, html = await partner.get("/console")
        assert (status, "winter" in html, "/console/keys" in html) == (200, False, False)
        status, html = await partner.get("/console/drives/winter")
        assert (status, "/edit" in html) == (200, False)
        page = "/console/drives/winter"
        status, _, html = await partner.submit("/console", f"{page}/state", {"action": "close"})
        assert status == 403
        assert str(CONSOLE_EN["refused_not_your_drive"]) in html
        change = {"slug": "winter", "title_en": "Mine", "goal": "1000"}
        assert (await partner.submit("/console/new", f"{page}/edit", change))[0] == 403
        creator = {"slug": "mine", "name": "Mine"}
        assert (await partner.submit("/console/new", f"{page}/creators", creator))[0] == 403
        for path in (
            "/console/keys",
            "/console/webhooks",
            "/console/drives/winter/pledges",
            "/console/drives/winter/money",
        ):
            assert (await partner.get(path))[0] == 403, path
        made = await partner.submit("/console/new", "/console/new", {**DRIVE_FORM, "slug": "abos"})
        assert made[0] == 303
    assert (await read(system, "/v1/drives/abos"))["partner"] == "abo"
    assert (await read(system, "/v1/drives/winter"))["state"] == "live"


async def test_key_is_shown_once_and_its_session_ends_when_it_is_revoked(
    system: WholeSystem, admin: Browser
) -> None:
    fields = [*hidden_in((await admin.get("/console/keys"))[1]).items(), ("kind", "secret"), ("mode", "live"),
              ("partner", "zed"), ("name", HOSTILE), ("scope", "drives"), ("scope", "pledges")]  # fmt: skip
    status, _, html = await admin.post("/console/keys", fields)
    made = re.search(r"sk_live_\w{32}", html)
    assert (status, HOSTILE in html) == (200, False)
    assert made is not None
    status, _, again = await admin.post("/console/keys", fields)
    assert (status, made[0] in again) == (200, False)
    assert str(CONSOLE_EN["key_gone"]) in again
    (stored,) = [one for one in (await read(system, "/v1/keys"))["data"] if one["partner"] == "zed"]
    assert stored["scopes"] == ["drives", "pledges"]
    async with aiohttp.ClientSession(system.url) as session:
        partner = Browser(session, system.url)
        await partner.log_in(made[0])
        assert (await partner.get("/console"))[0] == 200
        status, location, _ = await admin.submit(
            "/console/keys", "/console/keys/revoke", {"key": stored["id"]}
        )
        assert (status, location) == (303, "/console/keys?done=revoked")
        assert (await partner.get("/console"))[0] == 401
    assert (await admin.submit("/console/keys", "/console/keys/revoke", {"key": "../../drives"}))[0] == 404
    wrong = {"kind": "publishable", "origins": "not-an-origin"}
    status, _, html = await admin.submit("/console/keys", "/console/keys", wrong)
    assert (status, 'class="error"' in html) == (422, True)


async def test_refund_of_unknown_outcome_keeps_its_key_and_is_repeated_with_it(
    system: WholeSystem, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str | None] = []
    send = ServiceCalls.send

    async def answer(calls: ServiceCalls, *request: Any) -> Any:
        if not request[3].endswith("/refunds"):
            return await send(calls, *request)
        sent.append(request[5])
        if len(sent) in (2, 5):
            raise Refused(409, {"type": "/problems/request-in-progress"})
        if len(sent) < 5:
            raise ServiceUnavailable("no answer in time")
        return {"id": "rfd_1"}

    monkeypatch.setattr(ServiceCalls, "send", answer)
    monkeypatch.setattr("gateway.console.refunding.REFUND_PAUSES_S", (0.0, 0.0))
    pledge, path = ids.new("plg"), "/console/drives/winter/refunds"
    status, _, html = await admin.submit(
        "/console/drives/winter/pledges", path, {"pledge": pledge, "amount": "10", "why": "asked"}
    )
    assert status == 503
    assert "It is not known yet whether this refund was made." in html
    again = hidden_in(html[html.rindex("<details") :])
    assert f"console-{again['once']}" == sent[0]
    assert f'value="{pledge}"' in html
    assert 'value="10"' in html
    fields = {**again, "pledge": pledge, "amount": "10", "why": "asked"}
    assert (await admin.post(path, fields))[0] == 303
    assert sent == [sent[0]] * 6


async def test_pledges_are_searched_and_an_unpaid_one_is_not_refunded(
    system: WholeSystem, admin: Browser
) -> None:
    body = {"amount": {"currency": "USD", "value": "25.00"}, "reference": "order 7", "message": HOSTILE}
    sent = {**bearer(ADMIN), "Idempotency-Key": "console-1"}
    url = f"{system.url}/v1/drives/winter/pledges"
    async with system.session.post(url, json=body, headers=sent) as reply:
        pledge = (await reply.json())["id"]
    path = "/console/drives/winter/pledges"
    assert pledge in (await admin.get(f"{path}?reference=order+7&status=open"))[1]
    for query in ("reference=order", "status=paid"):
        status, html = await admin.get(f"{path}?{query}")
        assert (status, pledge in html) == (200, False)
    assert (await admin.get(f"{path}?status=%3Cb%3E&after=%00"))[0] == 422
    refund = "/console/drives/winter/refunds"
    status, _, html = await admin.submit(path, refund, {"pledge": pledge})
    # Payments consumes nothing in this test, so it does not know the pledge.
    assert (status, 'role="alert"' in html) == (404, True)
    for unknown in ("plg_" + "0" * 26, "../keys", HOSTILE, ""):
        status, _, html = await admin.submit(path, refund, {"pledge": unknown})
        assert (status, HOSTILE in html) == (404, False)


async def test_webhooks_are_listed_by_state_and_unknown_ones_are_not_retried(admin: Browser) -> None:
    for state in ("set_aside", "waiting", "ignored", "applied", "nonsense"):
        assert (await admin.get(f"/console/webhooks?state={state}"))[0] == 200
    for event in ("evt_unknown", "../keys", ""):
        answer = await admin.submit("/console/webhooks", "/console/webhooks/retry", {"event": event})
        assert answer[0] == 404


async def test_logout_ends_the_session(system: WholeSystem) -> None:
    async with aiohttp.ClientSession(system.url) as session:
        browser = Browser(session, system.url)
        await browser.log_in(ADMIN)
        status, location, _ = await browser.submit("/console", "/session/end", {"to": "/console?lang=ar"})
        assert (status, location) == (303, "/console?lang=ar")
        assert (await browser.get("/console"))[0] == 401


async def test_who_changed_what_is_logged(
    system: WholeSystem, admin: Browser, capsys: pytest.CaptureFixture[str]
) -> None:
    page = "/console/drives/winter"
    await admin.submit(page, f"{page}/state", {"action": "pause"})
    await admin.submit(page, f"{page}/state", {"action": "resume"})

    async def logged() -> bool:
        return (await read(system, "/v1/drives/winter"))["state"] == "live"

    await until(logged)
    text = capsys.readouterr().out
    assert "console.changed" in text
    assert "drive.pause" in text
    assert "key_admin" in text


@pytest.mark.parametrize(
    "path", ["/console/drives/none", "/console/drives/none/edit", "/console/drives/none/pledges"]
)
async def test_unknown_drive_is_a_page_of_404(admin: Browser, path: str) -> None:
    status, html = await admin.get(path)
    assert (status, 'role="alert"' in html) == (404, True)
