"""The layout of a stack: its directory, its ports and its generated secrets."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Final

HOST: Final = "127.0.0.1"
REPOSITORY: Final = Path(__file__).resolve().parents[1]
"""The directory of the packages and of `deploy/`."""

OFFSETS: Final[Mapping[str, int]] = {
    "gateway": 0,
    "pledges": 1,
    "payments": 2,
    "leaderboard": 3,
    "notify": 4,
    "sandbox": 12,
    "metrics_gateway": 20,
    "metrics_pledges": 21,
    "metrics_payments": 22,
    "metrics_leaderboard": 23,
    "metrics_notify": 24,
    "postgres": 32,
    "prometheus": 90,
    "kafka": 92,
    "kafka_controller": 93,
}
"""The offset of each port from `ATAA_STACK_PORT_BASE`."""


def ports_from(base: int, gateway: int | None = None, sandbox: int | None = None) -> dict[str, int]:
    """All ports from one base; the gateway's and the sandbox's may be given separately."""
    ports = {name: base + offset for name, offset in OFFSETS.items()}
    return ports | {
        name: port for name, port in (("gateway", gateway), ("sandbox", sandbox)) if port is not None
    }


def free_ports(gateway: int, sandbox: int) -> dict[str, int]:
    """Currently free ports, except for the gateway's and the sandbox's, which are given."""
    held = [socket.create_server((HOST, 0)) for _ in OFFSETS]
    try:
        found = {name: one.getsockname()[1] for name, one in zip(OFFSETS, held, strict=True)}
    finally:
        for one in held:
            one.close()
    return found | {"gateway": gateway, "sandbox": sandbox}


@dataclass(frozen=True, slots=True)
class Layout:
    """One stack: its directory (with `ports.json` and `keys.json`), ports and secrets.

    `kafka` and `databases` are the addresses that the services use, the stack's own or external ones.
    """

    directory: Path
    data_dir: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str]
    kafka: str
    databases: Mapping[str, str]

    def url(self, name: str) -> str:
        """The address of a process."""
        return f"http://{HOST}:{self.ports[name]}"

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.directory / "logs" / f"{name}.log"


def lay_out(
    directory: Path,
    data_dir: Path,
    ports: Mapping[str, int],
    given: Mapping[str, str],
    *,
    kafka: str = "",
    databases: Mapping[str, str] | None = None,
) -> Layout:
    """Write a stack's ports, secrets and admin key to its directory; existing secrets are kept.

    `given` secrets take precedence. An empty `kafka` or a missing database is the stack's own.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "logs").mkdir(mode=0o700, exist_ok=True)
    secrets = _secrets(directory, given)
    own = {
        name: f"postgresql://ataa:{secrets['postgres']}@{HOST}:{ports['postgres']}/{name}"
        for name in ("pledges", "payments", "leaderboard", "notify", "gateway")
    }
    keys = {**read_json(directory / "keys.json"), "admin": secrets["admin"]}
    write_json(directory / "keys.json", keys)
    write_json(directory / "ports.json", ports)
    bootstrap = kafka or f"{HOST}:{ports['kafka']}"
    return Layout(directory, data_dir, ports, secrets, bootstrap, own | dict(databases or {}))


def _secrets(directory: Path, given: Mapping[str, str]) -> dict[str, str]:
    made = {
        "internal": token_hex(32),
        "token": token_hex(32),
        "admin": f"ak_admin_{token_hex(20)}",
        "postgres": token_hex(16),
        "stripe_key": f"sk_test_{token_hex(16)}",
        "stripe_webhook": f"whsec_{token_hex(24)}",
        "kafka_cluster": base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="),
    }
    kept = read_json(directory / "secrets.json")
    if not kept.get("log_key"):
        made["log_key"] = _new_log_key(f"localhost/{token_hex(4)}")
    secrets = made | kept | {name: value for name, value in given.items() if value}
    write_json(directory / "secrets.json", secrets)
    return secrets


def _new_log_key(name: str) -> str:
    """A key that signs the public logs under `name`, by the program that makes one for operators."""
    command = [sys.executable, "-m", "gateway.transparency.note_keys", name]
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return made.stdout.partition("\n")[0].removeprefix("ATAA_LOG_KEY=")


def read_json(file: Path) -> dict[str, str]:
    """A JSON file's values as strings; empty if it does not exist."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {str(name): str(value) for name, value in found.items()}


def read_ports(directory: Path) -> dict[str, int]:
    """The ports of the stack in a directory; empty if there is none."""
    return {name: int(port) for name, port in read_json(directory / "ports.json").items()}


def write_json(file: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file atomically, readable by its owner only."""
    draft = file.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        json.dump(content, opened, indent=2)
        opened.write("\n")
    draft.replace(file)
