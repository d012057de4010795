"""What the Grafana dashboards are made of: panels, rows, and their JSON. `make dashboards` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
RATE: Final = "$__rate_interval"

MINOR: Final = "on(currency) group_left() max by (currency) (ataa_currency_minor_units)"
"""Converts minor units to the currency's unit: 100 for dollars, 1 for yen."""


@dataclass(frozen=True)
class Chart:
    """A panel: its queries by legend, its unit, and a description with the action to take.

    Values from `red_at` on are red (None: no value is); `stat` shows one number instead of a time series.
    """

    title: str
    unit: str
    queries: Mapping[str, str]
    about: str
    red_at: float | None = None
    width: int = 8
    stat: bool = False
    decimals: int | None = field(default=None)


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Page:
    """A dashboard; it is written as `<name>.json`."""

    name: str
    title: str
    about: str
    rows: Sequence[Row]
    time: str = "now-1h"

    @property
    def file(self) -> Path:
        """Where it is committed."""
        return Path(__file__).parent / f"{self.name}.json"

    def text(self) -> str:
        """The dashboard as JSON for Grafana's import; deterministic."""
        return JSONEncoder(sort_keys=True, indent=2).encode(_builder(self).build()) + "\n"

    def write(self) -> None:
        """Write it to its file."""
        self.file.write_text(self.text(), encoding="utf-8")


def rate(metric: str, labels: str = "", by: str = "") -> str:
    chosen = f"{{{labels}}}" if labels else ""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{chosen}[{RATE}]))"


def quantile(q: float, metric: str, by: str = "") -> str:
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket[{RATE}])))"


def mean(metric: str, by: str) -> str:
    return f"{rate(f'{metric}_sum', by=by)} / {rate(f'{metric}_count', by=by)}"


def _thresholds(red_at: float | None) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color="green")]
    if red_at is not None:
        steps.append(Threshold(value=red_at, color="red"))
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _panel(chart: Chart) -> Any:
    panel: Any
    if chart.stat:
        panel = stat.Panel().height(4).graph_mode(options.BigValueGraphMode.AREA)
        panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    else:
        panel = timeseries.Panel().height(8).line_width(2).fill_opacity(8)
        legend = common.VizLegendOptions().display_mode(options.LegendDisplayMode.TABLE)
        placed = legend.placement(options.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"])
        panel = panel.legend(placed.show_legend(True)).tooltip(
            common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI)
        )
        panel = panel.min(0)
    panel = panel.title(chart.title).description(chart.about).unit(chart.unit).datasource(SOURCE)
    panel = panel.span(chart.width).thresholds(_thresholds(chart.red_at))
    if chart.decimals is not None:
        panel = panel.decimals(chart.decimals)
    for letter, (legend_format, query) in zip("ABCDEF", chart.queries.items(), strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query).legend_format(legend_format)
        panel = panel.with_target(target.datasource(SOURCE).range())
    return panel


def _builder(page: Page) -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard(page.title)
        .uid(f"ataa-{page.name}")
        .description(page.about)
        .tags(["ataa"])
        .time(page.time, "now")
        .refresh("10s")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for row in page.rows:
        made = made.with_row(dashboard.Row(row.title))
        for chart in row.charts:
            made = made.with_panel(_panel(chart))
    return made
