"""`python -m rehearsal.bench`: the delay from card to screen and each process's CPU at fixed rates, as JSON.

`--checkout` names the checkout to start, so that one bench compares two versions on one machine:

    python -m rehearsal.bench --rate 1 --rate 16 --rate 40
    python -m rehearsal.bench --checkout ../before --rate 1 --rate 16 --rate 40
    python -m rehearsal.bench --stack --rate 1 --rate 16

A rate of 0 is saturation: `--donors` in flight, each of whom donates again immediately. Otherwise donors
arrive as a Poisson process with a fixed seed, often several at the same moment. The delay of a donation runs
from the answer to its capturing webhook to the first `totals` frame that covers it, as in the demo's report.
"""

import asyncio
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import aiohttp
import typer

from rehearsal.api_client import ApiClient, NoAnswer, new_session
from rehearsal.curve import Arrival, Plan, gift_size
from rehearsal.donors import Donors, LoadProfile
from rehearsal.drive import open_drive
from rehearsal.freshness import Freshness, percentile
from rehearsal.gifts import GiftPlanner
from rehearsal.installation import Installation
from rehearsal.live_stream import LiveStream
from rehearsal.proof import Auditor
from stack.layout import OFFSETS, read_json

ROOT: Final = Path(__file__).resolve().parents[1]
WARM_UP_S: Final = 3.0
"""Donations of the first seconds are not measured: caches and connections are still being filled."""
READINESS_TIMEOUT_S: Final = 180.0
SEEN_S: Final = 30.0
"""How long the last donations may take until they are shown."""
SEED: Final = 16
MANY_DONORS: Final = 400
"""Donors in flight at a fixed rate; each takes well under a second."""
SERVICES: Final = ("gateway", "pledges", "payments", "leaderboard", "notify")
STAGES: Final = "ataa_stage_seconds"
PATH: Final = ("applied payments", "relayed payments", "fetched leaderboard", "handled leaderboard",
               "published leaderboard", "received gateway", "pushed gateway")  # fmt: skip
"""The consecutive stages from the answer to a webhook to the screen (docs/performance.md)."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class System:
    """A running installation with its processes and their metrics addresses."""

    installation: Installation
    processes: Mapping[str, int]
    metrics: Sequence[str]


@app.command()
def bench(
    rate: Annotated[list[float], typer.Option(min=0, help="Donations a second; 0 is saturation.")],
    seconds: Annotated[float, typer.Option(min=4, max=600, help="Seconds at each rate.")] = 15.0,
    donors: Annotated[int, typer.Option(min=1, help="Donors in flight at saturation.")] = 64,
    stack: Annotated[bool, typer.Option("--stack", help="On Kafka and PostgreSQL.")] = False,
    checkout: Annotated[Path, typer.Option(help="The checkout to measure; by default this one.")] = ROOT,
    port_base: Annotated[int, typer.Option(min=1024, max=65000)] = 23400,
) -> None:
    """Start the system in an empty directory, donate at each rate, and print a line of JSON for each."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the started processes are stopped
    with tempfile.TemporaryDirectory(prefix="ataa-bench-") as directory:
        data, home = Path(directory), checkout.resolve()
        with _stack(home, data, port_base) if stack else _embedded(home, data, port_base) as system:
            for one in rate:
                figures = asyncio.run(_measure(system, one, seconds, donors))
                typer.echo(json.dumps({"stack": stack, "commit": _commit(home), **figures}))


def _commit(checkout: Path) -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip()


@contextmanager
def _embedded(checkout: Path, data: Path, base: int) -> Iterator[System]:
    environment = _environment(data, base)
    with (data / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded"], cwd=checkout, env=environment, stdout=log, stderr=log
        )
    try:
        _wait_until_ready(process, base, data)
        sandbox = _children(process.pid)
        ports = read_json(data / "ports.json")
        yield System(
            _installation(data, base, base + OFFSETS["sandbox"]),
            {"embedded": process.pid, **({"sandbox": sandbox[0]} if sandbox else {})},
            [f"http://127.0.0.1:{ports['metrics']}/metrics"] if "metrics" in ports else [],
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def _stack(checkout: Path, data: Path, base: int) -> Iterator[System]:
    environment = _environment(data, base)
    (data / "kafka").symlink_to(checkout / ".ataa" / "kafka")
    try:
        subprocess.run([sys.executable, "-m", "stack", "up"], cwd=checkout, env=environment, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        directory = data / "stack"
        ports = {name: int(port) for name, port in read_json(directory / "ports.json").items()}
        names = [file.stem for file in (directory / "run").glob("*.json")]
        yield System(
            _installation(directory, ports["gateway"], ports["sandbox"]),
            {name: int(read_json(directory / "run" / f"{name}.json").get("pid", 0)) for name in names},
            [f"http://127.0.0.1:{ports[f'metrics_{name}']}/metrics" for name in SERVICES],
        )
    finally:
        subprocess.run([sys.executable, "-m", "stack", "down"], cwd=checkout, env=environment, check=False,
                       stdout=subprocess.DEVNULL)  # fmt: skip


def _environment(data: Path, base: int) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    return own | {
        "ATAA_DATA_DIR": str(data),
        "ATAA_GATEWAY_PORT": str(base),
        "ATAA_SANDBOX_PORT": str(base + OFFSETS["sandbox"]),
        "ATAA_STACK_PORT_BASE": str(base),
        "ATAA_LOG_LEVEL": "warning",
    }


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, data: Path) -> None:
    give_up = time.monotonic() + READINESS_TIMEOUT_S
    while time.monotonic() < give_up and process.poll() is None:
        time.sleep(0.2)
        with socket.socket() as probe:
            listens = probe.connect_ex(("127.0.0.1", port)) == 0
        # The publishable key is made through the API, so the system is ready once the key exists.
        if listens and "publishable" in read_json(data / "keys.json"):
            return
    log = (data / "log").read_text(encoding="utf-8", errors="replace")
    raise SystemExit(f"bench: the system does not start\n{log[-2000:]}")


def _installation(directory: Path, gateway: int, sandbox: int) -> Installation:
    return Installation(directory, gateway, sandbox, "", "", drive=f"bench-{int(time.time())}")


async def _measure(system: System, rate: float, seconds: float, donors: int) -> dict[str, Any]:
    """Donate at `rate` for `seconds`; returns the delays, the rate of paid donations and the CPU used."""
    plan = Plan("bench", _arrivals(rate, seconds), gift_size, frozenset())
    run = f"bench-{time.time_ns()}"
    freshness = Freshness()
    at = system.installation
    installation = _installation(at.directory, at.gateway_port, at.sandbox_port)  # a new drive for each rate
    async with new_session() as session:
        api = ApiClient(session, installation.gateway_url)
        entry = await open_drive(
            api, read_json(installation.directory / "keys.json"), run, installation.drive
        )
        watch = LiveStream(
            session, f"{installation.gateway_url}/v1/drives/{installation.drive}/live", freshness
        )
        watching = asyncio.create_task(watch.follow())
        await watch.has_totals.wait()
        profile = LoadProfile(0.0 if rate else seconds, 0, MANY_DONORS if rate else donors)
        givers = Donors(api, installation.drive, entry, profile)
        giving = asyncio.create_task(givers.donate_all(plan, GiftPlanner(plan, SEED, run)))
        await asyncio.sleep(WARM_UP_S)
        warm = time.time()
        stages, cpu = await _stages(session, system.metrics), _cpu(system)
        frames = watch.frames
        await asyncio.sleep(max(0.0, seconds - WARM_UP_S))
        spent_s = time.time() - warm
        used = {name: (after - cpu[name]) / spent_s for name, after in _cpu(system).items()}
        frames_per_s = (watch.frames - frames) / spent_s
        await giving
        await _all_seen(Auditor(installation, session, freshness), freshness, givers)
        spent = _differences(stages, await _stages(session, system.metrics))
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    delays = freshness.delays_ms(since=warm)
    mean = sum(delays) / len(delays) if delays else None
    seen = [at for at in freshness.seen_times() if warm <= at <= warm + spent_s]
    return {
        "rate": rate,
        "paid_per_s": round(len(seen) / spent_s, 1),
        "mean_ms": _rounded(mean),
        "p50_ms": _rounded(percentile(delays, 0.5)),
        "p90_ms": _rounded(percentile(delays, 0.9)),
        "p99_ms": _rounded(percentile(delays, 0.99)),
        "gifts": len(delays),
        "frames_per_s": round(frames_per_s, 1),
        "stages_ms": spent,
        "stages_sum_ms": round(sum(spent.values()), 1),
        "cores": round(sum(used.values()), 3),
        "cpu": {name: round(share, 3) for name, share in sorted(used.items())},
        "errors": givers.tally.error_count,
    }


def _arrivals(rate: float, seconds: float) -> tuple[Arrival, ...]:
    rng = random.Random(SEED)  # noqa: S311 - a script, not a secret
    found: list[Arrival] = []
    at = rng.expovariate(rate) if rate else math.inf
    while at < seconds:
        found.append(Arrival(at, gift_size(rng)))
        at += rng.expovariate(rate)
    return tuple(found)


async def _all_seen(auditor: Auditor, freshness: Freshness, givers: Donors) -> None:
    give_up = time.monotonic() + SEEN_S
    while time.monotonic() < give_up:
        await auditor.read_new()
        if givers.tally.paid.keys() <= freshness.counted.keys() and len(freshness.seen_times()) == len(
            freshness.counted
        ):
            return
        await asyncio.sleep(0.5)
    raise NoAnswer(f"donations not shown after {SEEN_S} s")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


# The mean of each stage, from the metrics.


async def _stages(session: aiohttp.ClientSession, addresses: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Seconds and observations of each stage so far."""
    found: dict[str, tuple[float, float]] = {}
    for address in addresses:
        async with session.get(address) as response:
            text = await response.text()
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if not name.startswith((f"{STAGES}_sum", f"{STAGES}_count")):
                continue
            labels = [name.partition(f'{label}="')[2].partition('"')[0] for label in ("stage", "service")]
            stage = " ".join(labels)
            if stage not in PATH:
                continue
            total, count = found.get(stage, (0.0, 0.0))
            is_sum = name.startswith(f"{STAGES}_sum")
            found[stage] = (total + float(value), count) if is_sum else (total, count + float(value))
    return found


def _differences(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """The mean of each stage between the two readings, in milliseconds."""
    found = {}
    for stage, (total, count) in after.items():
        total_before, count_before = before.get(stage, (0.0, 0.0))
        if count > count_before:
            found[stage] = round((total - total_before) / (count - count_before) * 1000, 1)
    return {stage: found[stage] for stage in PATH if stage in found}


# CPU, from /proc: user and system time of a process and its descendants.


def _cpu(system: System) -> dict[str, float]:
    own = {name: _cpu_s(pid, deep=name != "embedded") for name, pid in system.processes.items()}
    return own | {"bench": _cpu_s(os.getpid(), deep=False)}


def _cpu_s(pid: int, *, deep: bool) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + (sum(_cpu_s(child, deep=True) for child in _children(pid)) if deep else 0.0)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in text.split()]


if __name__ == "__main__":
    app()
