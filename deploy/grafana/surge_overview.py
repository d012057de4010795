"""The dashboard for a drive that goes viral, as code: `python deploy/grafana/surge_overview.py` writes it.

Rows from what matters most to what explains it: is money coming in, is what is shown fresh, is
anything piling up, does Stripe answer, do the books agree. A panel's description says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

FILE: Final = Path(__file__).parent / "surge-overview.json"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
RATE: Final = "$__rate_interval"

MINOR: Final = "on(currency) group_left() max by (currency) (ataa_currency_minor_units)"
"""Turns minor units into the currency's own: a hundred cents are a dollar, a yen is a yen."""


@dataclass(frozen=True)
class Chart:
    """A panel: its queries by legend, its unit, what it means and what to do.

    `red_at` is where a value turns red (None: nothing is wrong at any value); `stat` is one large
    number instead of a line.
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


def _rate(metric: str, labels: str = "", by: str = "") -> str:
    chosen = f"{{{labels}}}" if labels else ""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{chosen}[{RATE}]))"


def _quantile(q: float, metric: str, by: str = "") -> str:
    groups = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({groups}) (rate({metric}_bucket[{RATE}])))"


def _mean(metric: str, by: str) -> str:
    return f"{_rate(f'{metric}_sum', by=by)} / {_rate(f'{metric}_count', by=by)}"


def _stripe(outcome: str) -> str:
    return _rate("ataa_stripe_requests_total", f'outcome="{outcome}"') + " or vector(0)"


CAPTURED_AN_HOUR: Final = "sum by (currency) (increase(ataa_captured_minor_units_total[1h]))"
CAPTURED: Final = _rate("ataa_payments_total", 'status="captured"')
DECLINED: Final = _rate("ataa_webhooks_total", 'type="payment_intent.payment_failed",result="applied"')

ROWS: Final = (
    Row(
        "At a glance",
        (
            Chart(
                "Drives live", "short", {"live": "max(ataa_drives_live)"},
                "How many drives take gifts now.", width=4, stat=True,
            ),
            Chart(
                "Captured, an hour", "short",
                {"{{currency}}": f"{CAPTURED_AN_HOUR} / {MINOR}"},
                "Gross, in the currency's own unit.", width=4, stat=True, decimals=0,
            ),
            Chart(
                "Furthest behind", "s", {"lag": "max(ataa_live_lag_seconds)"},
                "Age of the oldest figures shown. Over 3 s the door says `catching_up`.",
                red_at=3, width=4, stat=True,
            ),
            Chart(
                "Frozen drives", "short", {"frozen": 'max(ataa_live_drives{state="frozen"})'},
                "Shown as frozen: their figures no longer move. See leaderboard and the bus.",
                red_at=1, width=4, stat=True,
            ),
            Chart(
                "Ledger drift", "short",
                {"{{currency}}": "max by (currency) (abs(ataa_ledger_drift_minor_units))"},
                "Minor units. Anything but 0: stop refunds, call whoever keeps the books.",
                red_at=1, width=4, stat=True,
            ),
            Chart(
                "Processes up", "short", {"up": 'sum(up{job="ataa"})'},
                "Of all that Prometheus scrapes.", width=4, stat=True,
            ),
        ),
    ),
    Row(
        "Giving",
        (
            Chart(
                "Money a minute", "short",
                {"{{currency}}": f"60 * {_rate('ataa_captured_minor_units_total', by='currency')} / {MINOR}"},
                "Captured, gross, in the currency's own unit. Nothing while pledges come: look at Stripe.",
            ),
            Chart(
                "Pledges", "ops", {"{{outcome}}": _rate("ataa_pledges_total", by="outcome")},
                "Pledges a second. Many refused: a partner sends what does not fit, or a drive is closed.",
            ),
            Chart(
                "Payment success", "percentunit",
                {"of card tries": f"{CAPTURED} / ({CAPTURED} + ({DECLINED} or vector(0)))"},
                "Cards that were charged, of all that were tried. Below a half: a card tester, or Stripe.",
                decimals=1,
            ),
        ),
    ),
    Row(
        "Freshness",
        (
            Chart(
                "A gift's way to the screen, p50", "s",
                {"{{stage}}": _quantile(0.5, "ataa_freshness_seconds", "stage")},
                "applied: webhook stored to recorded; counted: recorded to in the totals; shown: recorded "
                "to in the gateway's figures (counted is part of it).",
            ),
            Chart(
                "A gift's way to the screen, p99", "s",
                {"{{stage}}": _quantile(0.99, "ataa_freshness_seconds", "stage")},
                "The stage that grows is the one to look at.", red_at=3,
            ),
            Chart(
                "Stripe's event to applied", "s",
                {"p50": _quantile(0.5, "ataa_webhook_delay_seconds"),
                 "p99": _quantile(0.99, "ataa_webhook_delay_seconds"),
                 "oldest waiting": "max(ataa_webhooks_oldest_waiting_seconds)"},
                "Counted from Stripe's own clock, in whole seconds. High with `applied` low: Stripe is late.",
                red_at=60,
            ),
            Chart(
                "Where a gift waits, mean", "s",
                {"{{stage}} {{service}}": _mean("ataa_stage_seconds", "stage, service")},
                "The stages from webhook to screen (docs/performance.md). Add up applied and relayed of "
                "payments, fetched, handled and published of leaderboard, received and pushed.",
                width=24,
            ),
        ),
    ),
    Row(
        "Piling up",
        (
            Chart(
                "Consumer lag", "short",
                {"{{group}} {{topic}}": "sum by (group, topic) (ataa_consumer_lag_records)"},
                "Records not yet handled. It may rise in a burst; it must fall after.", red_at=10_000,
            ),
            Chart(
                "Outbox age", "s", {"{{service}}": "max by (service) (ataa_outbox_age_seconds)"},
                "The oldest fact not yet on the bus. Rising: the bus is away; giving goes on.", red_at=30,
            ),
            Chart(
                "Outbox rows", "short", {"{{service}}": "max by (service) (ataa_outbox_rows)"},
                "Facts not yet on the bus.", red_at=10_000,
            ),
            Chart(
                "Webhooks", "ops", {"{{result}}": _rate("ataa_webhooks_total", by="result")},
                "stored and applied go together; set_aside is somebody's work.",
            ),
            Chart(
                "Dead letters, an hour", "short",
                {"{{group}}": "sum by (group) (increase(ataa_consumer_dead_letters_total[1h]))"},
                "Events given up on; each is kept with its reason in `<group>.dead-letter`.", red_at=1,
            ),
            Chart(
                "Background work that failed", "ops",
                {"{{worker}}": _rate("ataa_worker_failures_total", by="worker") + " or vector(0)"},
                "Each failure starts again by itself; one that goes on has a cause in the log.", red_at=0.1,
            ),
        ),
    ),
    Row(
        "Stripe",
        (
            Chart(
                "Requests", "reqps",
                {"{{endpoint}} {{outcome}}": _rate("ataa_stripe_requests_total", by="endpoint, outcome")},
                "What we ask of Stripe, and what became of it.",
            ),
            Chart(
                "429s and errors", "reqps",
                {"429": _stripe("rate_limited"), "unknown": _stripe("unknown"),
                 "unavailable": _stripe("unavailable")},
                "429s slow the queue by themselves. unavailable: the key is withdrawn.", red_at=1,
            ),
            Chart(
                "Checkouts", "ops",
                {"{{outcome}}": _rate("ataa_checkouts_total", by="outcome"),
                 "of unknown outcome": "max(ataa_checkouts_unknown)"},
                "Opened a second, and attempts whose outcome nobody knows yet.",
            ),
        ),
    ),
    Row(
        "Watching",
        (
            Chart(
                "Streams", "short", {"open": "sum(ataa_live_clients)"},
                "Open live streams, over all gateways.",
            ),
            Chart(
                "Streams dropped", "ops",
                {"{{why}}": _rate("ataa_live_dropped_total", by="why") + " or vector(0)"},
                "Clients too slow to follow. Many at once: the network, not they.", red_at=10,
            ),
            Chart(
                "Answers", "reqps",
                {"{{status}}": _rate("ataa_gateway_answers_total", by="status")},
                "5xx: something behind the door is away. 429: a limit holds.",
            ),
            Chart(
                "Memory", "bytes",
                {"{{service}} {{instance}}": 'process_resident_memory_bytes{job="ataa"}'},
                "Of each process.", width=12,
            ),
            Chart(
                "Processor time", "percentunit",
                {"{{service}} {{instance}}": f'rate(process_cpu_seconds_total{{job="ataa"}}[{RATE}])'},
                "Of one core. A process near 100 % for minutes needs a second one.", red_at=0.9, width=12,
            ),
        ),
    ),
)  # fmt: skip


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


def _builder() -> dashboard.Dashboard:
    made = (
        dashboard.Dashboard("Ataa: surge overview")
        .uid("ataa-surge-overview")
        .description("One drive going viral: money, freshness, what piles up, Stripe, the books.")
        .tags(["ataa"])
        .time("now-1h", "now")
        .refresh("10s")
        .timezone("utc")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for row in ROWS:
        made = made.with_row(dashboard.Row(row.title))
        for chart in row.charts:
            made = made.with_panel(_panel(chart))
    return made


def text() -> str:
    """The dashboard as Grafana imports it: JSON, the same for the same code."""
    return JSONEncoder(sort_keys=True, indent=2).encode(_builder().build()) + "\n"


def queries() -> Iterator[tuple[str, str, str]]:
    """Every query of the dashboard: its panel, its legend, its expression."""
    for row in ROWS:
        for chart in row.charts:
            for legend, query in chart.queries.items():
                yield chart.title, legend, query


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
