"""Engines that could send the streams instead of the gateway: nchan and Centrifugo, on this machine.

`python -m bench.rivals NAME PORT FRAME_BYTES FRAMES_PER_S` publishes frames to a running one. Each sends the
same bytes to as many clients as the gateway does; Centrifugo adds its own envelope.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import child
from bench.floors import frame_of
from bench.systems import ROOT, CannotStart, stop

NAMES: Final = ("nchan", "centrifugo")
NCHAN_MODULE: Final = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CHANNEL: Final = "bench"
_START_S: Final = 15.0
_SUBSCRIBE: Final = f"/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22{CHANNEL}%22%3A%7B%7D%7D%7D"


class NotInstalled(Exception):
    """The engine is not installed; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Rival:
    """A running engine to which frames are published: what a client opens, and its process."""

    port: int
    path: str
    pid: int


@contextmanager
def running(name: str, frame_bytes: int, frames_per_s: float) -> Iterator[Rival]:
    """Run an engine and its publisher. Raises NotInstalled, CannotStart."""
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="ataa-bench-", ignore_cleanup_errors=True) as directory:
        command, path = (
            _nchan(Path(directory), port) if name == "nchan" else _centrifugo(Path(directory), port)
        )
        arguments = (name, str(port), str(frame_bytes), str(frames_per_s))
        with _process(command) as engine:
            _wait_until_open(engine, port, name)
            with child.running("bench.rivals", *arguments):
                yield Rival(port, path, engine.pid)


def _nchan(folder: Path, port: int) -> tuple[Sequence[str], str]:
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or not NCHAN_MODULE.is_file():
        raise NotInstalled("not installed (Debian: nginx and libnginx-mod-nchan)")
    file = folder / "nginx.conf"
    file.write_text(
        f"""load_module {NCHAN_MODULE};
{"user root;" if os.geteuid() == 0 else ""}
daemon off; worker_processes 1; worker_rlimit_nofile 30000; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 30000; }}
http {{
    access_log off; client_body_temp_path {folder}/body; nchan_shared_memory_size 256m;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /publish {{ nchan_publisher; nchan_channel_id {CHANNEL}; nchan_message_buffer_length 1; }}
        location /live {{
            nchan_subscriber http-raw-stream; nchan_channel_id {CHANNEL};
            nchan_subscriber_http_raw_stream_separator '';
        }}
    }}
}}
""",
        encoding="utf-8",
    )
    return [program, "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log"], "/live"


def _centrifugo(folder: Path, port: int) -> tuple[Sequence[str], str]:
    own = str(Path.home() / "go" / "bin")
    program = shutil.which("centrifugo", path=f"{os.environ.get('PATH', '')}:{own}")
    if program is None:
        raise NotInstalled("not installed (go install github.com/centrifugal/centrifugo/v6@v6.9.1)")
    settings: Mapping[str, Any] = {
        "http_server": {"port": str(port), "address": "127.0.0.1"},
        "http_api": {"key": "k"},
        "client": {"insecure": True, "allow_anonymous_connect_without_token": True},
        "uni_sse": {"enabled": True},
        "channel": {"without_namespace": {"allow_subscribe_for_client": True, "history_size": 0}},
        "log": {"level": "error"},
    }
    file = folder / "centrifugo.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    return [program, "-c", str(file)], _SUBSCRIBE


@contextmanager
def _process(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        stop(process)


def _wait_until_open(engine: subprocess.Popen[bytes], port: int, name: str) -> None:
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up and engine.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise CannotStart(f"{name} does not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def request_of(name: str, frame: str) -> tuple[str, bytes, dict[str, str]]:
    """The path, body and headers that publish a frame to an engine."""
    if name == "nchan":
        return "/publish", frame.encode(), {}
    # The same figures as an object: a client counts the mark and reads the time in both forms.
    shown = json.loads(frame.partition("data: ")[2])
    body = {"channel": CHANNEL, "data": {"mark": "event: totals", **shown}}
    return (
        "/api/publish",
        json.dumps(body, separators=(",", ":")).encode(),
        {"X-API-Key": "k", "Content-Type": "application/json"},
    )


def publish(name: str, port: int, frame_bytes: int, frames_per_s: float) -> None:
    """Publish frames until the process is ended, and announce the first; failed ones are left out."""
    due, announced = time.monotonic(), False
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    while True:
        try:
            connection.request("POST", *request_of(name, frame_of(frame_bytes, time.time())))
            response = connection.getresponse()
            response.read()
            if response.status < 300 and not announced:
                child.announce(port)
                announced = True
        except OSError:
            connection.close()
        due += 1 / frames_per_s
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    publish(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
