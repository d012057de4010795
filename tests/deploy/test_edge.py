"""The edge in compose and Kubernetes: a configuration that nginx accepts, and addresses that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge.settings import EdgeSettings
from gateway.settings import GatewaySettings
from tests.deploy.manifests import DEPLOY, Resource, of_kind, rendered
from tests.deploy.test_compose import new_env, services
from tests.edge.nginx import need_nginx
from tests.ports import free_port

OVERLAY = "production-edge"
EDGE = DEPLOY / "edge"
SITE_IN_IMAGE = "/etc/ataa-edge/site/"


def mounted_in_kubernetes() -> dict[str, str]:
    """The files of the ConfigMap that the manifests mount into site/."""
    container, pod = edge_container(rendered(OVERLAY))
    volume = next(one for one in pod["volumes"] if one["name"] == "site")
    files = of_kind(rendered(OVERLAY), "ConfigMap")[volume["configMap"]["name"]]["data"]
    mounts = [one for one in container["volumeMounts"] if one["name"] == "site"]
    assert {one["subPath"] for one in mounts} == set(files)
    return {one["mountPath"].removeprefix(SITE_IN_IMAGE): files[one["subPath"]] for one in mounts}


def mounted_in_compose() -> dict[str, str]:
    """The files that the compose file mounts into site/."""
    volumes = (volume.split(":") for volume in services(new_env())["edge"]["volumes"])
    return {
        target.removeprefix(SITE_IN_IMAGE): (DEPLOY / "compose" / source).read_text()
        for source, target, _ in volumes
    }


def edge_container(resources: list[Resource]) -> tuple[Resource, Resource]:
    """The edge's container and its pod."""
    pod = of_kind(resources, "StatefulSet")["edge"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return container, pod


def servers(text: str) -> set[str]:
    """The addresses of `server` lines."""
    return set(re.findall(r"^server (\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("main", ["nginx.conf", "nginx-nchan.conf"])
@pytest.mark.parametrize("mounted", [mounted_in_kubernetes, mounted_in_compose])
def test_nginx_accepts_the_configuration_of_the_image(main: str, mounted: Any, tmp_path: Path) -> None:
    need_nginx(nchan=True)
    shutil.copytree(EDGE, tmp_path / "edge")
    shutil.copytree(EDGE / "image" / "site", tmp_path / "edge" / "site", dirs_exist_ok=True)
    for name, text in mounted().items():
        assert (EDGE / "site" / name).is_file(), f"{name} is included nowhere"
        (tmp_path / "edge" / "site" / name).write_text(text)
    for file in (tmp_path / "edge" / "site").glob("*.conf"):
        # Names of containers and pods exist only there; the ports may be in use here.
        text = re.sub(r"^server \S+:", "server 127.0.0.1:", file.read_text(), flags=re.MULTILINE)
        text = re.sub(r"listen (?:127\.0\.0\.1:)?\d+", lambda _: f"listen 127.0.0.1:{free_port()}", text)
        file.write_text(text)
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program is not None
    checked = subprocess.run(
        [program, "-t", "-e", "stderr", "-p", tmp_path, "-c", tmp_path / "edge" / main],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_image_starts_the_configurations_that_exist() -> None:
    container, _ = edge_container(rendered(OVERLAY))
    lines = (EDGE / "image" / "Dockerfile").read_text()
    started = [
        *container["args"],
        *services(new_env())["edge"]["command"],
        *re.findall(r'CMD \["(.+)"\]', lines),
    ]
    assert len(started) == 3
    for path in started:
        assert (EDGE / path.removeprefix("/etc/ataa-edge/")).is_file()


def test_edge_in_kubernetes_asks_existing_services() -> None:
    resources = rendered(OVERLAY)
    known = {
        f"{name}:{one['spec']['ports'][0]['port']}": one["spec"]
        for name, one in of_kind(resources, "Service").items()
    }
    files = mounted_in_kubernetes()
    assert servers(files["gateways.conf"]) == {"gateway:8000"}
    assert servers(files["read_gateways.conf"]) == {"gateway-reads:8000"}
    assert known["gateway-reads:8000"]["sessionAffinity"] == "ClientIP"
    for address in servers(files["gateways.conf"]) | servers(files["read_gateways.conf"]):
        assert known[address]["selector"] == {"app.kubernetes.io/name": "gateway"}


def test_visitors_of_the_ingress_reach_the_edge() -> None:
    resources = rendered(OVERLAY)
    (ingress,) = of_kind(resources, "Ingress").values()
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert [path["backend"]["service"] for path in paths] == [{"name": "edge", "port": {"name": "http"}}]
    container, _ = edge_container(resources)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"listen {ports['http']} " in (EDGE / "image" / "site" / "listen.conf").read_text()
    assert f"listen {ports['publish']};" in (EDGE / "image" / "site" / "nchan.conf").read_text()


def test_gateways_trust_the_edge_and_the_edge_trusts_the_ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = of_kind(rendered(OVERLAY), "ConfigMap")
    (settings,) = (one["data"] for name, one in maps.items() if name.startswith("ataa-settings"))
    trusted = settings["ATAA_TRUSTED_PROXIES"]
    assert f"set_real_ip_from {trusted};" in mounted_in_kubernetes()["client_address.conf"]
    monkeypatch.setenv("ATAA_LIMIT_ADDRESS_PER_S", settings["ATAA_LIMIT_ADDRESS_PER_S"])
    limits = GatewaySettings.model_fields["limit_address_per_s"].default
    assert float(settings["ATAA_LIMIT_ADDRESS_PER_S"]) == limits  # donors are told apart again


def published_to(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> EdgeSettings:
    """The publisher's settings from exactly this environment."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return EdgeSettings()


def test_publisher_sends_to_every_pod_of_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    resources = rendered(OVERLAY)
    (container,) = of_kind(resources, "Deployment")["edge-publisher"]["spec"]["template"]["spec"][
        "containers"
    ]
    settings = published_to({one["name"]: one["value"] for one in container["env"]}, monkeypatch)
    edge = of_kind(resources, "StatefulSet")["edge"]["spec"]
    assert of_kind(resources, "Service")[edge["serviceName"]]["spec"]["clusterIP"] == "None"
    pods = [f"http://edge-{number}.{edge['serviceName']}:8078" for number in range(edge["replicas"])]
    assert (container["args"], settings.edge_nchan) == (["edge"], pods)
    drives = mounted_in_kubernetes()["nchan_drives.conf"]
    assert {line.split()[1].rstrip(";") for line in drives.splitlines() if not line.startswith("#")} == set(
        settings.edge_drives
    )


def test_only_the_publisher_reaches_nchans_publisher_port() -> None:
    policies = of_kind(rendered(OVERLAY), "NetworkPolicy")
    rules = policies["edge"]["spec"]["ingress"]
    (allowed,) = [rule for rule in rules if {"port": "publish"} in rule["ports"]]
    assert allowed["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "edge-publisher"}}}]
    assert policies["edge-publisher"]["spec"]["ingress"] == []


def test_edge_of_the_compose_file_uses_both_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    every = services(new_env())
    assert servers(mounted_in_compose()["gateways.conf"]) == {"gateway:8000", "gateway-2:8000"}
    first, second = every["gateway"], every["gateway-2"]
    assert (second["environment"], second["command"]) == (first["environment"], first["command"])
    settings = published_to(every["edge-publisher"]["environment"], monkeypatch)
    assert settings.edge_nchan == ["http://edge:8078"]
    for name in ("edge", "edge-publisher", "gateway-2"):
        assert every[name]["profiles"], f"{name} would start without being asked for"
        assert (every[name]["user"], every[name]["read_only"]) == ("10001:10001", True)


def test_edge_pods_are_restricted() -> None:
    _, edge = edge_container(rendered(OVERLAY))
    publisher = of_kind(rendered(OVERLAY), "Deployment")["edge-publisher"]["spec"]["template"]["spec"]
    for pod in (edge, publisher):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert (context["readOnlyRootFilesystem"], context["capabilities"]) == (True, {"drop": ["ALL"]})
