"""The metrics follow Prometheus's naming rules, have bounded labels, and are documented."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import REGISTRY

import gateway.app
import services.leaderboard.app
import services.notify.app
import services.payments.app
import services.pledges.app

HANDBOOK = Path(__file__).parents[2] / "docs" / "operations" / "metrics.md"
COMPOSED = (
    gateway.app,
    services.leaderboard.app,
    services.notify.app,
    services.payments.app,
    services.pledges.app,
)
BOUNDED = {
    "service", "group", "topic", "worker", "outcome", "status", "currency", "type", "result", "endpoint",
    "stage", "state", "limit", "lane", "route", "why", "le", "table",
    "reason", "source", "account",
}  # fmt: skip
UNITS = ("_seconds", "_bytes", "_units", "_rows", "_records")


def ours() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """Every metric of Ataa: type, help and labels."""
    found = {}
    for collector, names in REGISTRY._collector_to_names.items():
        for metric in collector.describe() if hasattr(collector, "describe") else ():
            if metric.name.startswith("ataa_") and names:
                labels = tuple(getattr(collector, "_labelnames", ()))
                found[metric.name] = (metric.type, metric.documentation, labels)
    return found


def test_metric_names_follow_conventions_and_labels_are_bounded() -> None:
    assert COMPOSED
    metrics = ours()
    assert len(metrics) > 25
    for name, (kind, text, labels) in metrics.items():
        assert re.fullmatch(r"ataa_[a-z][a-z0-9_]*", name)
        assert text.endswith("."), name
        assert set(labels) <= BOUNDED, name
        assert not name.endswith(("_total", "_ms", "_count", "_sum", "_bucket")), (
            name
        )  # the library adds _total
        if kind == "histogram":
            assert name.endswith(UNITS), name


def test_handbook_documents_every_metric() -> None:
    handbook = HANDBOOK.read_text(encoding="utf-8")
    for name, (kind, _, labels) in ours().items():
        shown = f"{name}_total" if kind == "counter" else name
        assert f"`{shown}`" in handbook, shown
        line = next(line for line in handbook.splitlines() if f"`{shown}`" in line)
        assert all(f"`{label}`" in line for label in labels), (shown, labels)
