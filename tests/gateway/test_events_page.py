"""The event catalogue has every event of the contracts, with its frozen example."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from backbone.contracts import DriveChanged, wire_names
from gateway.events_page import catalogue, page
from gateway.pages import asset_url
from tests.gateway.harness import Harness

ROOT = Path(__file__).parents[2]
OURS = {name: kind for name, kind in wire_names().items() if not name.startswith("tests.")}


def test_catalogue_has_every_event_once_under_its_producer() -> None:
    listed = [(producer, name) for producer, kinds in catalogue() for name in kinds]
    assert sorted(name for _, name in listed) == sorted(OURS)
    assert all(name.startswith(f"{producer}.") for producer, name in listed)


def test_examples_are_the_frozen_samples() -> None:
    shown = json.loads((ROOT / "gateway" / "event_examples.json").read_text(encoding="utf-8"))
    frozen = {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in (ROOT / "tests" / "contracts" / "examples").glob("*.json")
    }
    assert shown == frozen
    assert all(list(shown[name]) == list(frozen[name]) for name in frozen)


async def test_each_event_shows_its_name_topic_key_fields_example_and_schema(harness: Harness) -> None:
    status, headers, text = await fetch(harness, "/events")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src" not in headers["Content-Security-Policy"]  # default-src 'none': no script runs
    articles = dict(re.findall(r'<article id="([^"]+)">(.*?)</article>', text, re.DOTALL))
    assert set(articles) == set(OURS)
    for name, kind in OURS.items():
        article = unescape(articles[name])
        assert f"<dt>Topic</dt><dd><code>{kind.topic}</code>" in article
        assert f"<dt>Key</dt><dd><code>{kind.key_field}</code>" in article
        fields = re.findall(r'<th scope="row"><code>(\w+)</code>', article)
        assert sorted(fields) == sorted(kind.model_fields)
        shown, schema = (
            json.loads(code) for code in re.findall(r"<pre[^>]*><code>(.*?)</code></pre>", article, re.DOTALL)
        )
        assert kind.model_validate(shown).key == shown[kind.key_field]
        published = json.loads((ROOT / "docs" / "contracts" / f"{name}.json").read_text(encoding="utf-8"))
        assert schema == published
        reply = await fetch(harness, f"/events/{name}.json")
        assert (reply[0], json.loads(reply[2])) == (200, published)


async def test_page_loads_no_external_files_and_supports_etags(harness: Harness) -> None:
    text = page().decode()
    assert set(re.findall(r'(?:src|href)="([^"#][^"]*)"', text)) == {
        "/docs", asset_url("mark.svg"), "/events/style.css", *(f"/events/{name}.json" for name in OURS)
    }  # fmt: skip
    for path in ("/events", "/events/style.css"):
        _, headers, _ = await fetch(harness, path)
        again, _, _ = await fetch(harness, path, {"If-None-Match": headers["ETag"]})
        assert again == 304
    assert (await fetch(harness, "/events/nothing.v1.json"))[0] == 404


async def test_schema_is_built_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/events/pledges.drive_changed.v1.json"
    first = await fetch(harness, path)
    monkeypatch.setattr(DriveChanged, "model_json_schema", None)  # a second build fails
    assert (await fetch(harness, path))[2] == first[2]
    assert (await fetch(harness, path, {"If-None-Match": "*"}))[0] == 304


async def fetch(
    harness: Harness, path: str, headers: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, str], str]:
    """A page's status, headers and text."""
    async with harness.session.get(path, headers=headers) as reply:
        return reply.status, reply.headers, await reply.text()


def test_page_is_well_formed_and_its_links_resolve() -> None:
    parser = _Tags()
    parser.feed(page().decode())
    assert parser.open == []
    assert parser.targets <= parser.ids
    assert len(parser.ids) == len(parser.all_ids)


class _Tags(HTMLParser):
    """Tags opened and not closed, ids, and links within the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.all_ids: list[str] = []
        self.targets: set[str] = set()

    @property
    def ids(self) -> set[str]:
        return set(self.all_ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)
        if (own := given.get("id")) is not None:
            self.all_ids.append(own)
        if (link := given.get("href") or "").startswith("#"):
            self.targets.add(link[1:])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
