"""The console's page of a funnel."""

from __future__ import annotations

import re

import pytest

from gateway.console.funnel_page import steps_of
from gateway.console.funnel_texts import FUNNEL_AR, FUNNEL_EN
from tests.gateway.console_harness import Browser
from tests.gateway.harness import ADMIN, DRIVE, Harness, drive
from tests.gateway.reach.drive_page import know
from tests.gateway.reach.test_funnel import answer, report, visits_of

PAGE = f"/console/drives/{DRIVE}/funnel"


@pytest.fixture
async def admin(harness: Harness) -> Browser:
    know(harness, partner="default")
    harness.pledges.answers[f"GET /v1/drives/{DRIVE}"] = (200, {**drive(), "partner": "default"})
    browser = Browser(harness.session, harness.url)
    await browser.log_in(ADMIN)
    return browser


async def test_page_shows_the_steps_of_all_and_of_each_source_and_a_table(
    harness: Harness, admin: Browser
) -> None:
    for step in ("seen", "seen", "seen", "opened"):
        await report(harness, f"/d/winter/visits?step={step}&platform=tiktok&campaign=winter")
    await visits_of(harness).flush()
    answer(harness, [("tiktok", "winter", 5), (None, None, 1)], [("tiktok", "winter", 4, 10050)])
    status, html = await admin.get(f"{PAGE}?lang=en")
    assert (status, html.count('<ol class="steps">')) == (200, 3)
    text = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html))
    assert "Pages seen 3 Form opened 1 33% of the step before Pledged 6 Paid 4 66% of the step before" in text
    assert "tiktok / winter 3 1 5 4 $100.50" in text
    assert "Not stated 0 0 1 0 $0" in text
    assert "All sources 3 1 6 4 $100.50" in text
    arabic = (await admin.get(f"{PAGE}?lang=ar&digits=arab&period=week"))[1]
    assert str(FUNNEL_AR["step_pledged"]) in arabic
    assert "٦" in arabic


async def test_period_with_too_many_pledges_offers_shorter_ones(harness: Harness, admin: Browser) -> None:
    answer(harness, [], [], complete=False)
    status, html = await admin.get(f"{PAGE}?period=month&lang=en")
    assert (status, str(FUNNEL_EN["refused_period_too_long"]) in html) == (422, True)
    assert f'href="{PAGE}?lang=en&amp;period=hour"' in html


async def test_period_without_anything_says_so(harness: Harness, admin: Browser) -> None:
    answer(harness, [], [])
    for period in ("hour", "month", "<b>", "%00"):
        status, html = await admin.get(f"{PAGE}?lang=en&period={period}")
        assert status in (200, 422)
        assert (str(FUNNEL_EN["no_views"]) in html) == (status == 200)


async def test_funnel_of_another_partner_is_refused(harness: Harness, admin: Browser) -> None:
    answer(harness, [], [])
    other = Browser(harness.session, harness.url)
    await other.log_in(await harness.key(kind="secret", partner="noor", scopes=["drives"]))
    status, html = await other.get(PAGE)
    assert (status, 'role="alert"' in html) == (403, True)


def test_shares_are_of_the_step_before_where_that_is_larger() -> None:
    found = steps_of({"seen": 1000, "opened": 335, "pledged": 400, "paid": 0})
    assert [one.percent for one in found] == [None, 33, None, 0]
    assert [one.per_mille for one in found] == [1000, 335, 400, 0]
    assert [one.percent for one in steps_of(dict.fromkeys(("seen", "opened", "pledged", "paid"), 0))] == [
        None
    ] * 4
