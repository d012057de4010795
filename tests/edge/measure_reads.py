"""Measures what a read of totals costs at the edge, and how many of them reach the gateway.

    python -m tests.edge.measure_reads --connections 200 --seconds 15      (needs wrk)

Each reader appends t=<number>, accepts gzip and knows an older version. CPU is of nginx alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import tempfile
from pathlib import Path

from tests.edge.nginx import Edge, cpu_s, running_edge
from tests.edge.origin import origin_reads
from tests.journeys.embedded_system import EmbeddedSystem, running
from tests.ports import FOLDER

SCRIPT = """
number = 0
request = function()
  number = number + 1
  return wrk.format("GET", wrk.path .. "?t=" .. number)
end
"""


async def measure(
    system: EmbeddedSystem, edge: Edge, folder: Path, known: str, connections: int, seconds: int
) -> dict[str, float | str]:
    """One run: readers whose `If-None-Match` is `known`."""
    script = folder / "poll.lua"
    script.write_text(SCRIPT)
    arguments = [
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "-H",
        f"If-None-Match: {known}",
        "-H",
        "Accept-Encoding: gzip",
        "-s",
        str(script),
        f"{edge.url}/v1/drives/measured/totals",
    ]
    # nginx lets those who wait for a first answer look again every 500 ms.
    await system.request("GET", f"{edge.url}/v1/drives/measured/totals", Accept_Encoding="gzip")
    cpu, reads = sum(map(cpu_s, edge.processes())), await origin_reads(system)
    wrk = await asyncio.create_subprocess_exec("wrk", *arguments, stdout=asyncio.subprocess.PIPE)
    text = (await wrk.communicate())[0].decode()
    cpu, reads = sum(map(cpu_s, edge.processes())) - cpu, await origin_reads(system) - reads
    found = re.search(r"(\d+) requests in ([\d.]+)s", text)
    assert found is not None, text
    count, took = int(found[1]), float(found[2])
    latency = re.search(r"99%\s+(\S+)", text)
    return {
        "answers": "304" if known.startswith("W/") else "200",
        "reads_per_s": round(count / took),
        "p99": latency[1] if latency else "",
        "cpu_us_a_read": round(cpu / count * 1e6, 2),
        "nginx_cores": round(cpu / took, 2),
        "origin_reads_per_s": round(reads / took, 2),
        "failed": "Non-2xx" in text,
    }


async def main() -> None:
    """Measure whole answers, then answers to readers that are up to date; a line of JSON for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ[FOLDER] = temporary
        async with running(folder / "ataa") as system:
            await system.open_drive("measured")
            for number in range(10):
                await system.donate("measured", f"{number + 5}.00", creator="star")
            await system.wait_for_raised("measured", "95.00")
            async with running_edge(folder / "edge", system.gateway_port) as edge:
                newest = (await system.request("GET", "/v1/drives/measured/totals")).headers["ETag"]
                for known in ('"none"', newest):
                    shown = await measure(system, edge, folder, known, options.connections, options.seconds)
                    print(json.dumps(shown))  # noqa: T201 - the command's output


if __name__ == "__main__":
    asyncio.run(main())
