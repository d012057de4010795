"""Prometheus scrapes a running system during donations: every panel has data and no alert fires."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.journeys.embedded_system import EmbeddedSystem, live_frames, running
from tests.observability.programs import need
from tests.ports import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
CONFIG = """
global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}
rule_files: [{rules}]
scrape_configs:
  - job_name: ataa
    static_configs: [{{ targets: ["127.0.0.1:{port}"], labels: {{ service: embedded }} }}]
"""


class Prometheus:
    """A running Prometheus and its HTTP API."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self.url = url
        self._client = client

    async def get(self, path: str, **query: str) -> Any:
        async with self._client.get(f"{self.url}/api/v1/{path}", params=query) as answer:
            body = await answer.json()
            assert body["status"] == "success", body
            return body["data"]

    async def values(self, query: str) -> list[float]:
        """The numeric values of an instant query."""
        found = await self.get("query", query=query.replace("$__rate_interval", "30s"))
        values = [float(series["value"][1]) for series in found["result"]]
        return [value for value in values if value == value]


def _spawn(program: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            *(
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
            ),
            *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"),
        ],
        cwd=folder,
    )


@asynccontextmanager
async def prometheus(folder: Path, metrics_port: int) -> AsyncIterator[Prometheus]:
    """Run Prometheus, scraping one process twice a second, until the block ends."""
    program, port = need("prometheus"), free_port()
    rules = ROOT / "deploy" / "prometheus" / "alerts.rules.yml"
    (folder / "prometheus.yml").write_text(CONFIG.format(rules=rules, port=metrics_port), encoding="utf-8")
    process = _spawn(program, folder, port)
    try:
        async with aiohttp.ClientSession() as client:
            started = Prometheus(f"http://127.0.0.1:{port}", client)

            async def scraped() -> bool:
                assert process.poll() is None
                with contextlib.suppress(aiohttp.ClientError):
                    return await started.values('up{job="ataa"}') == [1.0]
                return False

            await until(scraped)
            yield started
    finally:
        process.terminate()
        process.wait(20)


async def test_dashboard_queries_return_data_and_no_alert_fires(tmp_path: Path) -> None:
    need("prometheus")
    port = free_port()
    settings = {"ATAA_METRICS_PORT": str(port), "ATAA_STRIPE_SETTLEMENT_S": "0.5"}
    async with running(tmp_path / "ataa", **settings) as system:
        await system.open_drive("measured")
        await move_money(system)
        await system.wait_until_books_agree()
        system.kill()
        await system.start()  # audits the ledger at the start, and then each minute
        async with prometheus(tmp_path, port) as asked:
            watching = asyncio.create_task(live_frames(system, "measured", asyncio.Queue()))
            await give_for_a_while(system, asked)
            missing = {
                f"{panel['title']}: {target['expr']}"
                for dashboard in sorted((ROOT / "deploy/grafana").glob("*.json"))
                for panel in json.loads(dashboard.read_text())["panels"]
                for target in panel.get("targets", ())
                if not await asked.values(target["expr"])
            }
            watching.cancel()
            assert missing == set()
            assert await asked.values("sum(ataa_live_clients)") == [1.0]
            assert await asked.values("max(abs(ataa_ledger_drift_minor_units))") == [0.0]
            assert await asked.values("max(ataa_drives_live)") == [1.0]
            alerts = (await asked.get("alerts"))["alerts"]
            assert [alert for alert in alerts if alert["state"] == "firing"] == []
            assert await refused_rules(asked) == []


async def move_money(system: EmbeddedSystem) -> None:
    """A gift that is matched, one that is refunded, one that is disputed, and a payout."""
    pool = {"sponsor": "Acme", "ratio": "1.00", "cap": {"currency": "USD", "value": "900000.00"}}
    made = await system.admin("POST", "/v1/drives/measured/matching-pools", pool)
    assert made.status == 201, made.body
    await system.donate("measured", "100.00")  # more than the dispute and its fee: something is paid out
    refunded = await system.donate("measured", "6.00")
    await system.pay(await system.pledge("measured", "7.00"), "4000000000000259")
    await system.wait_for_raised("measured", "212.00", disputed="7.00")
    answer = await system.admin("POST", f"/v1/pledges/{refunded['id']}/refunds", {})
    assert answer.status == 201, answer.body
    await system.wait_for_raised("measured", "200.00", disputed="7.00")
    answer = await system.request("POST", f"{system.sandbox_url}/_sandbox/payouts", {})
    assert answer.status == 200, answer.body

    async def reconciled() -> bool:
        payouts = (await system.admin("GET", "/v1/payouts")).body["data"]
        return bool(payouts) and all(each["reconciled"] for each in payouts)

    await until(reconciled)


async def give_for_a_while(system: EmbeddedSystem, asked: Prometheus) -> None:
    """Make donations, a declined card and a refused pledge, until all were scraped."""

    async def given() -> bool:
        await asyncio.gather(*(system.donate("measured", "5.00") for _ in range(4)))
        pledge = await system.pledge("measured")
        await system.pay(pledge, "4000000000000002")
        await system.pay(pledge)
        wrong = {"amount": {"currency": "EUR", "value": "5.00"}}
        assert (await system.admin("POST", "/v1/drives/measured/pledges", wrong)).status == 422
        seen = await asked.values('sum(increase(ataa_payments_total{status="captured"}[30s]))')
        declined = await asked.values(
            'increase(ataa_webhooks_total{type="payment_intent.payment_failed"}[30s])'
        )
        shown = await asked.values('rate(ataa_freshness_seconds_count{stage="shown"}[30s])')
        return bool(
            seen and seen[0] > 5 and any(declined) and any(shown) and await asked.values("ataa_drives_live")
        )

    await until(given)


async def refused_rules(asked: Prometheus) -> list[str]:
    """The rules that Prometheus could not evaluate."""
    groups = (await asked.get("rules"))["groups"]
    return [rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"]
