"""Readers of the files under deploy/ for the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from backbone.process import ProcessSettings
from backbone.settings import Settings
from gateway.settings import GatewaySettings
from services.leaderboard.settings import LeaderboardSettings
from services.notify.settings import NotifySettings
from services.payments.settings import PaymentsSettings
from services.pledges.settings import PledgesSettings

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
K8S: Final = DEPLOY / "k8s"
OVERLAYS: Final = ("dev", "production")
SETTINGS: Final[Mapping[str, type[Settings]]] = {
    "gateway": GatewaySettings,
    "pledges": PledgesSettings,
    "payments": PaymentsSettings,
    "leaderboard": LeaderboardSettings,
    "notify": NotifySettings,
}
"""The five processes and their settings classes besides `ProcessSettings`."""

Resource = dict[str, Any]

AUTHORITY: Final = str(Path(__file__).with_name("authority.pem"))
"""A certificate in the place of Kafka's authority."""


def tool(name: str) -> str:
    """A tool of `make k8s-check`; without it, skips the test, or fails it with ATAA_REQUIRE_REAL=1."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is not None:
        return found
    reason = f"{name} is not installed: make k8s-check installs it"
    if os.environ.get("ATAA_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def rendered(overlay: str) -> list[Resource]:
    """All resources of an overlay."""
    return _rendered(tool("kubectl"), overlay)


@cache
def _rendered(kubectl: str, overlay: str) -> list[Resource]:
    built = subprocess.run(
        [kubectl, "kustomize", K8S / "overlays" / overlay], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def of_kind(resources: list[Resource], kind: str) -> dict[str, Resource]:
    """The resources of one kind by name."""
    return {one["metadata"]["name"]: one for one in resources if one["kind"] == kind}


def pods(resources: list[Resource]) -> dict[str, Resource]:
    """The pod of each Deployment."""
    return {name: one["spec"]["template"]["spec"] for name, one in of_kind(resources, "Deployment").items()}


@cache
def secrets() -> dict[str, dict[str, str]]:
    """The Secrets of secrets.sh: values by key, by Secret."""
    made = subprocess.run([K8S / "secrets.sh"], capture_output=True, text=True, check=True, env=_bare())
    return {one["metadata"]["name"]: one["stringData"] for one in yaml.safe_load_all(made.stdout)}


def _bare() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


def environment(container: Resource, resources: list[Resource]) -> dict[str, str]:
    """A container's environment, with the Secrets of secrets.sh."""
    maps = of_kind(resources, "ConfigMap")
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]["data"]
    for entry in container.get("env", []):
        ref = entry["valueFrom"]["secretKeyRef"]
        found[entry["name"]] = secrets()[ref["name"]][ref["key"]]
    return found


def read(process: str, given: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A process's settings from exactly this environment, common and own. Raises where they are invalid."""
    for name in [name for name in os.environ if name.startswith("ATAA_")]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        # The mounted file does not exist here; another test checks that it is mounted.
        monkeypatch.setenv(name, AUTHORITY if name == "ATAA_KAFKA_CA_FILE" else value)
    return ProcessSettings(), SETTINGS[process]()


def images(text: str) -> set[str]:
    """The images that a rendered manifest or the compose file uses."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            found.update(str(node[key]) for key in ("image", "imageName") if isinstance(node.get(key), str))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    for document in yaml.safe_load_all(text):
        walk(document)
    return found
