"""Loads the Grafana dashboard's queries from Prometheus as a browser would, and times them.

Grafana asks Prometheus for each query of each panel again at every refresh; browsers keep six requests open.
The screen is complete when the last has answered. It is then behind the system by that time and by the age of
the newest sample.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from rehearsal.freshness import percentile

FILE: Final = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "surge-overview.json"
RANGE_S: Final = 900.0
"""The queries' time range: the last 15 minutes."""
POINTS: Final = 600
"""About as many points as a panel has pixels."""
SCRAPE_S: Final = 5.0
AT_ONCE: Final = 6
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30.0)
_NEWEST: Final = 'time() - max(timestamp(up{job="ataa"}))'


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard's title, address, refresh interval, and the queries of its panels."""

    title: str
    uid: str
    refresh_s: float
    queries: Sequence[tuple[str, str]]


def read(file: Path = FILE) -> Dashboard:
    """Read a dashboard. Raises OSError, KeyError."""
    found = json.loads(file.read_text(encoding="utf-8"))
    panels = [panel for panel in found["panels"] if panel["type"] != "row"]
    queries = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    return Dashboard(found["title"], found["uid"], float(found["refresh"].removesuffix("s")), queries)


@dataclass(slots=True)
class ScreenTimes:
    """What the refreshes took so far, in ms; `failed` counts refreshes with a query that was not answered."""

    loads_ms: list[float] = field(default_factory=list)
    behind_ms: list[float] = field(default_factory=list)
    slowest: dict[str, float] = field(default_factory=dict)
    failed: int = 0
    reason: str = ""

    def report(self) -> dict[str, Any]:
        """The figures for the report; None where nothing was measured."""
        loads, behind = sorted(self.loads_ms), sorted(self.behind_ms)
        panels = sorted(self.slowest.items(), key=lambda one: -one[1])[:3]
        return {
            "refreshes": len(loads),
            "failed": self.failed,
            "load_ms": {"p50": _rounded(percentile(loads, 0.5)), "max": _rounded(percentile(loads, 1.0))},
            "behind_ms": {"p50": _rounded(percentile(behind, 0.5)), "max": _rounded(percentile(behind, 1.0))},
            "slowest_panels_ms": {panel: round(took, 1) for panel, took in panels},
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


class DashboardReader:
    """Refreshes a dashboard at a Prometheus until cancelled; `times` is always current."""

    def __init__(self, session: aiohttp.ClientSession, prometheus_url: str, dashboard: Dashboard) -> None:
        self.times = ScreenTimes()
        self._session = session
        self._url = prometheus_url
        self._dashboard = dashboard
        self._open = asyncio.Semaphore(AT_ONCE)

    async def follow(self) -> None:
        """Refresh at the dashboard's interval, the next time after the last has been answered."""
        while True:
            began = time.monotonic()
            await self.refresh()
            await asyncio.sleep(max(0.0, self._dashboard.refresh_s - (time.monotonic() - began)))

    async def refresh(self) -> None:
        """Load all queries once, and note how long it took and how old the newest sample was then."""
        began = time.monotonic()
        try:
            await asyncio.gather(*(self._load(panel, query) for panel, query in self._dashboard.queries))
            load_ms = (time.monotonic() - began) * 1000
            newest_s = await self._newest_sample_s()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as failure:
            self.times.failed += 1
            self.times.reason = str(failure) or type(failure).__name__
            return
        self.times.loads_ms.append(load_ms)
        if newest_s is not None:
            self.times.behind_ms.append(load_ms + newest_s * 1000)

    async def _load(self, panel: str, query: str) -> None:
        now = time.time()
        step = max(SCRAPE_S, RANGE_S / POINTS)
        asked = {
            # Grafana's value: four scrapes, or the step and a scrape.
            "query": query.replace("$__rate_interval", f"{max(4 * SCRAPE_S, step + SCRAPE_S):g}s"),
            "start": f"{now - RANGE_S:.3f}",
            "end": f"{now:.3f}",
            "step": f"{step:g}",
        }
        async with self._open:
            began = time.monotonic()
            await self._ask("query_range", asked)
            took_ms = (time.monotonic() - began) * 1000
        self.times.slowest[panel] = max(took_ms, self.times.slowest.get(panel, 0.0))

    async def _newest_sample_s(self) -> float | None:
        """The age of the newest sample of Ataa's processes; None where Prometheus has none."""
        found = await self._ask("query", {"query": _NEWEST})
        return max(0.0, float(found[0]["value"][1])) if found else None

    async def _ask(self, path: str, asked: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
        url = f"{self._url}/api/v1/{path}"
        async with self._session.post(url, data=dict(asked), timeout=_TIMEOUT) as response:
            body = await response.json()
        if body.get("status") != "success":
            raise ValueError(f"{asked['query']}: {body.get('error', response.status)}")
        found: Sequence[Mapping[str, Any]] = body["data"]["result"]
        return found
