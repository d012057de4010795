"""The Grafana dashboard for a drive under high load; `make dashboards` writes it.

The rows go from the outcome to its causes: is money captured, are totals fresh, does anything accumulate,
does Stripe respond, do the books agree. A panel's description states what to do.
"""

from __future__ import annotations

from typing import Final

from panels import MINOR, RATE, Chart, Page, Row, mean, quantile, rate


def _stripe(outcome: str) -> str:
    return rate("ataa_stripe_requests_total", f'outcome="{outcome}"') + " or vector(0)"


CAPTURED_AN_HOUR: Final = "sum by (currency) (increase(ataa_captured_minor_units_total[1h]))"
CAPTURED: Final = rate("ataa_payments_total", 'status="captured"')
DECLINED: Final = rate("ataa_card_tries_total", 'outcome="declined"')

_ROWS: Final = (
    Row(
        "At a glance",
        (
            Chart(
                "Drives live", "short", {"live": "max(ataa_drives_live)"},
                "Drives that accept pledges.", width=4, stat=True,
            ),
            Chart(
                "Captured per hour", "short",
                {"{{currency}}": f"{CAPTURED_AN_HOUR} / {MINOR}"},
                "Gross, in units of the currency.", width=4, stat=True, decimals=0,
            ),
            Chart(
                "Oldest figures shown", "s", {"lag": "max(ataa_live_lag_seconds)"},
                "Age of the oldest totals shown. From 3 s on their state is `catching_up`.",
                red_at=3, width=4, stat=True,
            ),
            Chart(
                "Frozen drives", "short", {"frozen": 'max(ataa_live_drives{state="frozen"})'},
                "Drives without a heartbeat from leaderboard. Check leaderboard and the bus.",
                red_at=1, width=4, stat=True,
            ),
            Chart(
                "Ledger drift", "short",
                {"{{currency}}": "max by (currency) (abs(ataa_ledger_drift_minor_units))"},
                "Minor units; must be 0. Otherwise stop refunds and follow the runbook of AtaaLedgerDrift.",
                red_at=1, width=4, stat=True,
            ),
            Chart(
                "Processes up", "short", {"up": 'sum(up{job="ataa"})'},
                "Processes that answer Prometheus.", width=4, stat=True,
            ),
        ),
    ),
    Row(
        "Donations",
        (
            Chart(
                "Captured per minute", "short",
                {"{{currency}}": f"60 * {rate('ataa_captured_minor_units_total', by='currency')} / {MINOR}"},
                "Gross, in units of the currency. None while pledges are made: check Stripe.",
            ),
            Chart(
                "Pledges", "ops", {"{{outcome}}": rate("ataa_pledges_total", by="outcome")},
                "Per second. Many refused: a partner sends invalid requests, or a drive is closed.",
            ),
            Chart(
                "Payment success", "percentunit",
                {"of card attempts": f"{CAPTURED} / ({CAPTURED} + ({DECLINED} or vector(0)))"},
                "Share of card attempts that were charged. Below half: card testing, or Stripe.",
                decimals=1,
            ),
        ),
    ),
    Row(
        "Freshness",
        (
            Chart(
                "Donation to screen by stage, p50", "s",
                {"{{stage}}": quantile(0.5, "ataa_freshness_seconds", "stage")},
                "applied: webhook stored to recorded; counted: recorded to totals; shown: recorded to "
                "the gateway's figures (includes counted).",
            ),
            Chart(
                "Donation to screen by stage, p99", "s",
                {"{{stage}}": quantile(0.99, "ataa_freshness_seconds", "stage")},
                "The stage that grows is the one to check.", red_at=3,
            ),
            Chart(
                "Stripe event to applied", "s",
                {"p50": quantile(0.5, "ataa_webhook_delay_seconds"),
                 "p99": quantile(0.99, "ataa_webhook_delay_seconds"),
                 "oldest waiting": "max(ataa_webhooks_oldest_waiting_seconds)"},
                "By Stripe's clock, in whole seconds. High while `applied` is low: Stripe delivers late.",
                red_at=60,
            ),
            Chart(
                "Mean delay of a donation by stage", "s",
                {"{{stage}} {{service}}": mean("ataa_stage_seconds", "stage, service")},
                "The stages from webhook to screen (docs/performance.md). Add up applied and relayed of "
                "payments, fetched, handled and published of leaderboard, received and pushed.",
                width=24,
            ),
        ),
    ),
    Row(
        "Backlogs",
        (
            Chart(
                "Consumer lag", "short",
                {"{{group}} {{topic}}": "sum by (group, topic) (ataa_consumer_lag_records)"},
                "Unhandled records. May rise in a burst, and must fall afterwards.", red_at=10_000,
            ),
            Chart(
                "Outbox age", "s", {"{{service}}": "max by (service) (ataa_outbox_age_seconds)"},
                "Age of the oldest unpublished row. Rising: the bus is unavailable.", red_at=30,
            ),
            Chart(
                "Outbox rows", "short", {"{{service}}": "max by (service) (ataa_outbox_rows)"},
                "Rows not yet published.", red_at=10_000,
            ),
            Chart(
                "Webhooks", "ops", {"{{result}}": rate("ataa_webhooks_total", by="result")},
                "stored and applied should match; set_aside (quarantined) needs an operator.",
            ),
            Chart(
                "Dead letters per hour", "short",
                {"{{group}}": "sum by (group) (increase(ataa_consumer_dead_letters_total[1h]))"},
                "Unhandled events; each is in `<group>.dead-letter` with its reason.", red_at=1,
            ),
            Chart(
                "Worker failures", "ops",
                {"{{worker}}": rate("ataa_worker_failures_total", by="worker") + " or vector(0)"},
                "A worker restarts after each failure; see the log for repeated ones.", red_at=0.1,
            ),
        ),
    ),
    Row(
        "Stripe",
        (
            Chart(
                "Requests", "reqps",
                {"{{endpoint}} {{outcome}}": rate("ataa_stripe_requests_total", by="endpoint, outcome")},
                "Requests to Stripe by outcome.",
            ),
            Chart(
                "429s and errors", "reqps",
                {"429": _stripe("rate_limited"), "unknown": _stripe("unknown"),
                 "unavailable": _stripe("unavailable")},
                "429s slow the queue down. unavailable: the key is revoked or not permitted.", red_at=1,
            ),
            Chart(
                "Checkouts", "ops",
                {"{{outcome}}": rate("ataa_checkouts_total", by="outcome"),
                 "unknown outcome": "max(ataa_checkouts_unknown)"},
                "Checkouts per second by outcome, and attempts with an unknown outcome.",
            ),
        ),
    ),
    Row(
        "Viewers and processes",
        (
            Chart(
                "Live streams", "short", {"open": "sum(ataa_live_clients)"},
                "Open live streams of all gateways.",
            ),
            Chart(
                "Live streams dropped", "ops",
                {"{{why}}": rate("ataa_live_dropped_total", by="why") + " or vector(0)"},
                "Closed because the client was too slow. Many at once: the network.", red_at=10,
            ),
            Chart(
                "Responses", "reqps",
                {"{{status}}": rate("ataa_gateway_answers_total", by="status")},
                "5xx: a service behind the gateway is unavailable. 429: a limit applies.",
            ),
            Chart(
                "Gives way under overload", "short",
                {"{{lane}}": "sum by (lane) (ataa_gateway_shedding)"},
                "Gateways in which this gives way to donations: recent first, pledges last.", red_at=1,
            ),
            Chart(
                "Load of the gateways", "s",
                {"event loop": "max(ataa_gateway_loop_lag_seconds)",
                 "pledge waits": "max(ataa_gateway_pledge_wait_seconds)"},
                "Delay of the event loop, and expected wait of a new pledge. From 0.3 s features give way.",
                red_at=0.3,
            ),
            Chart(
                "Refused", "reqps",
                {"limit {{limit}}": rate("ataa_gateway_limited_total", by="limit"),
                 "shed {{lane}}": rate("ataa_gateway_shed_total", by="lane")},
                "Requests refused by a limit (429, 503) or because they gave way (503).", red_at=1,
            ),
            Chart(
                "Memory", "bytes",
                {"{{service}} {{instance}}": 'process_resident_memory_bytes{job="ataa"}'},
                "Resident memory of each process.", width=12,
            ),
            Chart(
                "CPU", "percentunit",
                {"{{service}} {{instance}}": f'rate(process_cpu_seconds_total{{job="ataa"}}[{RATE}])'},
                "Of one core. A process near 100 % for minutes needs another replica.", red_at=0.9, width=12,
            ),
        ),
    ),
)  # fmt: skip

PAGE: Final = Page(
    "surge-overview",
    "Ataa: surge overview",
    "A drive under high load: money, freshness, backlogs, Stripe, the books.",
    _ROWS,
)

if __name__ == "__main__":
    PAGE.write()
