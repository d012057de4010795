"""`make api-fuzz`: start the embedded run, fill it, and let Schemathesis loose on its API."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from backbone.clock import rfc3339

BENEFICIARY: Final = "Winter Relief"
ROOT: Final = Path(__file__).parents[2]
HERE: Final = Path(__file__).parent
SCHEMATHESIS: Final = ROOT / ".venv-api-fuzz" / "bin" / "schemathesis"
START_S: Final = 60.0
STOP_S: Final = 30.0


@dataclass
class Running:
    """An embedded run on free ports, in a folder that goes with it."""

    port: int
    sandbox_port: int
    data: Path
    process: subprocess.Popen[bytes]
    calls: int = 0

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """Its admin key."""
        return str(json.loads((self.data / "keys.json").read_text())["admin"])

    def answers(self, path: str) -> bool:
        """Whether a GET is answered with 200."""
        try:
            _request(self.port, "GET", path)
        except (OSError, RuntimeError, ValueError) as error:
            return isinstance(error, ValueError)  # 2xx, and no JSON
        return True

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The JSON that the API answers; raises RuntimeError for anything but 2xx."""
        self.calls += 1
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Idempotency-Key": f"set-up-{self.calls}",
            "Prefer": "wait=20",
        }
        return _request(self.port, method, path, None if body is None else json.dumps(body), headers)


def main() -> int:
    """Run Schemathesis; its exit code."""
    options = argparse.ArgumentParser(prog="make api-fuzz")
    options.add_argument("--max-examples", type=int, default=25, help="of each operation, in each phase")
    options.add_argument("--seed", type=int, help="default: 1 where CI=true, else a new one each time")
    options.add_argument("--only", metavar="REGEX", help="only operations whose path matches")
    options.add_argument("--report-dir", type=Path, help="where to write a report of every request")
    given = options.parse_args()
    if given.seed is None and os.environ.get("CI") == "true":
        given.seed = 1
    with (
        tempfile.TemporaryDirectory(prefix="ataa-api-fuzz-") as folder,
        embedded_run(Path(folder)) as running,
    ):
        done = fuzz(running, fill(running), given)
        if running.process.poll() is not None:
            raise SystemExit(f"api-fuzz: the embedded run ended with {running.process.returncode}")
        return done


@contextlib.contextmanager
def embedded_run(folder: Path) -> Iterator[Running]:
    """An embedded run that answers; its log is shown where it does not start."""
    port, sandbox_port = _free_ports(2)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ATAA_")}
    data, log = folder / "data", folder / "embedded.log"
    environment = {
        **kept,
        "ATAA_DATA_DIR": str(data),
        "ATAA_GATEWAY_PORT": str(port),
        "ATAA_SANDBOX_PORT": str(sandbox_port),
    }
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded"], cwd=ROOT, env=environment, stdout=written, stderr=written
        )
    running = Running(port, sandbox_port, data, process)
    try:
        deadline = time.monotonic() + START_S
        while not running.answers("/readyz"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"api-fuzz: the embedded run did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)


def fill(running: Running) -> dict[str, Any]:
    """Make drives, pledges and keys; what `hooks.py` puts into requests."""
    live, changing, moving = (_drive(running, slug) for slug in ("winter", "changing", "moving"))
    running.call("POST", f"/v1/drives/{live}/open")
    aboflah = {"slug": "aboflah", "name": "AboFlah", "team": "Blue"}
    creator = running.call("POST", f"/v1/drives/{live}/creators", aboflah)["id"]
    pledges = [_pledge(running, live) for _ in range(6)]
    for pledge in pledges[:2]:
        _pay(running, pledge)
    _until_paid(running, pledges[:2])
    boards = f"/v1/drives/{live}/leaderboards"
    _until(lambda: running.answers(f"{boards}/creators?around={creator}"))
    _until(lambda: all(running.call("GET", f"{boards}/{board}")["data"] for board in ("donors", "sources")))
    keys = [running.call("POST", "/v1/keys", {"kind": "secret"})["id"] for _ in range(3)]
    stored = [one["id"] for one in running.call("GET", "/v1/webhooks")["data"]]
    names, now = [pledge["id"] for pledge in pledges], datetime.now(UTC)
    payments = [one["id"] for one in running.call("GET", "/v1/payments")["data"]]
    moves = {f"POST /v1/drives/{{drive}}/{move}": {"drive": [moving]} for move in ("open", "pause", "resume")}
    return {
        "creator": "aboflah",
        "beneficiary": BENEFICIARY,
        "webhook_secret": json.loads((running.data / "secrets.json").read_text())["stripe_webhook"],
        "names": {"drive": [live, "winter"], "pledge": names, "payment": payments, "key": keys, "id": stored},
        "paths": {
            **moves,
            "PATCH /v1/drives/{drive}": {"drive": [changing]},
            "POST /v1/drives/{drive}/close": {"drive": [_drive(running, "closing")]},
            "POST /v1/pledges/{pledge}/cancel": {"pledge": names[2:4]},
            "POST /v1/pledges/{pledge}/refunds": {"pledge": names[:2]},
        },
        "queries": {
            "/v1/totals": {"drives": [live, "changing"]},
            "/v1/pledges": {"drive": live},
            "/v1/payments": {"drive": live},
            "/v1/drives/{drive}/funnel": {"since": rfc3339(now - timedelta(hours=2)), "until": rfc3339(now)},
            "/v1/drives/{drive}/leaderboards/{board}": {
                "around": {
                    "creators": creator,
                    "teams": aboflah["team"],
                    "donors": running.call("GET", f"{boards}/donors")["data"][0]["donor"],
                    "sources": running.call("GET", f"{boards}/sources")["data"][0]["source"],
                }
            },
        },
    }


def fuzz(running: Running, data: dict[str, Any], given: argparse.Namespace) -> int:
    """Run Schemathesis on the description that `running` gives of itself; its exit code."""
    document = running.data / "openapi.json"
    document.write_text(json.dumps(_strict(_request(running.port, "GET", "/openapi.json"))))
    command = [
        *(str(SCHEMATHESIS), "--config-file", str(HERE / "schemathesis.toml"), "run", str(document)),
        *("--url", running.url, "--header", f"Authorization: Bearer {running.key}"),
        *("--max-examples", str(given.max_examples)),
        *(("--seed", str(given.seed)) if given.seed is not None else ()),
        *(("--include-path-regex", given.only) if given.only else ()),
        *(("--report", "ndjson", "--report-dir", str(given.report_dir)) if given.report_dir else ()),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "API_FUZZ_DATA": json.dumps(data),
        "API_FUZZ_RUN": secrets.token_hex(4),
    }
    return subprocess.run(command, cwd=running.data, env=environment, check=False).returncode


def _strict(document: dict[str, Any]) -> dict[str, Any]:
    """The description without `default` responses: a status that is not listed is a finding."""
    for item in document["paths"].values():
        for operation in item.values():
            operation["responses"].pop("default", None)
    return document


def _drive(running: Running, slug: str) -> str:
    goal = {"currency": "USD", "value": "1000.00"}
    body = {"slug": slug, "title": slug, "currency": "USD", "goal": goal}
    shares = [{"name": BENEFICIARY, "share_bps": 10_000}]
    made = running.call("POST", "/v1/drives", {**body, "beneficiaries": shares})
    return str(made["id"])


def _pledge(running: Running, drive: str) -> dict[str, Any]:
    amount = {"currency": "USD", "value": "25.00"}
    source = {"platform": "twitch", "campaign": "winter"}
    pledge = {"amount": amount, "source": source, "donor": {"name": "Layla"}, "message": "A warm night"}
    made: dict[str, Any] = running.call("POST", f"/v1/drives/{drive}/pledges", pledge)
    return made


def _pay(running: Running, pledge: dict[str, Any]) -> None:
    address = urlsplit(pledge["checkout"]["url"])
    card = json.dumps({"card": "4242424242424242"})
    _request(running.sandbox_port, "POST", f"{address.path}/pay", card, {"Content-Type": "application/json"})


def _until_paid(running: Running, pledges: list[dict[str, Any]]) -> None:
    for pledge in pledges:
        path = f"/v1/pledges/{pledge['id']}"
        _until(lambda path=path: running.call("GET", path)["status"] == "paid")  # type: ignore[misc]


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit("api-fuzz: what was set up did not become visible")
        time.sleep(0.1)


def _request(
    port: int, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    try:
        connection.request(method, path, body, headers or {})
        reply = connection.getresponse()
        text = reply.read()
        if reply.status >= 300:
            raise RuntimeError(f"{method} {path} answered {reply.status}: {text.decode()}")
        return json.loads(text)
    finally:
        connection.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    sys.exit(main())
