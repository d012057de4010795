"""Reads the gateway's own count of its answers."""

from __future__ import annotations

import json
import re

from tests.journeys.embedded_system import EmbeddedSystem


async def origin_reads(system: EmbeddedSystem) -> int:
    """How many totals the gateway has answered."""
    port = json.loads((system.folder / "data" / "ports.json").read_text())["metrics"]
    text = (await system.request("GET", f"http://127.0.0.1:{port}/metrics")).body.decode()
    found = re.findall(r'ataa_gateway_answers_total\{route="/v1/drives/\{drive\}/totals",\S+ (\S+)', text)
    return int(sum(map(float, found)))
