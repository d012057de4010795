from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.reach.sources import MAX_CAMPAIGN, MAX_PLATFORM, Source, referrer_of, source_of


@pytest.mark.parametrize(
    ("query", "source"),
    [
        ({"platform": "TikTok"}, Source("tiktok")),
        ({"platform": "https://vm.tiktok.com/ZM8x/?a=1"}, Source("tiktok")),
        ({"utm_source": "IG", "utm_campaign": "Winter  2026!"}, Source("instagram", "winter-2026")),
        ({"platform": "x.com", "utm_source": "youtube"}, Source("x")),
        ({"hashtag": "#شتاءهم_أدفأ"}, Source(None, "شتاءهم_أدفأ")),
        ({"story": "Day 3", "ref": "snap"}, Source("snapchat", "day-3")),
        ({"campaign": "a/b<script>"}, Source(None, "a-b-script")),
        ({"platform": "\u200b\u202e \x00", "campaign": "-._"}, Source()),
        ({"creator": "aboflah"}, Source()),
    ],
)
def test_source_is_written_in_one_way(query: dict[str, str], source: Source) -> None:
    assert source_of(query) == source


@given(platform=st.text(max_size=300), campaign=st.text(max_size=600))
def test_source_is_bounded_and_survives_its_own_link(platform: str, campaign: str) -> None:
    source = source_of({"platform": platform, "campaign": campaign})
    assert source_of(source.parameters) == source
    assert len(source.platform or "") <= MAX_PLATFORM
    assert len(source.campaign or "") <= MAX_CAMPAIGN
    assert "".join(source.parameters.values()).isprintable()
    assert source.address("/d/winter").isascii()


@pytest.mark.parametrize(
    ("referrer", "origin"),
    [
        ("https://www.tiktok.com/@aboflah/video/1?x=y#z", "https://www.tiktok.com"),
        ("http://user:secret@Example.org:81/x", "http://example.org:81"),
        ("http://[::1]:9/", "http://[::1]:9"),
        ("javascript:alert(1)", None),
        ("https://[::1", None),
        ("https://a:99999999/", None),
        ('https://x"y/', None),
        ("https://" + "a" * 300 + ".org/", None),
        ("android-app://com.google.android.gm/", None),
        ("", None),
    ],
)
def test_referrer_is_reduced_to_its_origin(referrer: str, origin: str | None) -> None:
    assert referrer_of({"referrer": referrer}) == origin


@given(st.text(max_size=400))
def test_referrer_is_an_origin_or_none(text: str) -> None:
    found = referrer_of({"referrer": f"https://{text}"})
    assert found is None or (found.count("/") == 2 and referrer_of({"referrer": found}) == found)
