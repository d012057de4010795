"""The compose file has the same processes, settings and topics as the code and the manifests."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, SETTINGS, read

FOLDER = DEPLOY / "compose"
PROCESSES = sorted(SETTINGS)
EDGE = ("edge", "edge-publisher", "gateway-2")
VARIABLE = r"\$\{(\w+)(?::([-?][^}]*))?\}"


def new_env() -> dict[str, str]:
    """The environment file that new-env.sh prints."""
    made = subprocess.run([FOLDER / "new-env.sh"], capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in made.stdout.splitlines())


def services(env: dict[str, str]) -> dict[str, Any]:
    """The compose file's services, with variables replaced as `docker compose` does."""
    found: dict[str, Any] = _filled(yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"], env)
    return found


def _filled(node: Any, env: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _filled(value, env) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, env) for value in node]
    return re.sub(VARIABLE, lambda found: _value(found, env), node) if isinstance(node, str) else node


def _value(found: re.Match[str], env: dict[str, str]) -> str:
    name, default = found[1], found[2] or ""
    assert name in env or not default.startswith("?"), f"new-env.sh does not make {name}"
    return env.get(name, default.lstrip("-"))


def settings(service: dict[str, Any]) -> dict[str, str]:
    """A service's environment."""
    return {name: str(value) for name, value in service["environment"].items()}


def test_compose_file_has_every_process() -> None:
    assert sorted(services(new_env())) == sorted(
        [*PROCESSES, *EDGE, "grafana", "kafka", "postgres", "prometheus", "sandbox", "topics"]
    )


@pytest.mark.parametrize("process", PROCESSES)
def test_process_accepts_its_settings(process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every = services(new_env())
    one = every[process]
    assert one["command"] == [process if process == "gateway" else f"services.{process}"]
    both, own = read(process, settings(one), monkeypatch)
    assert both.service_host == "0.0.0.0"
    assert both.kafka_bootstrap == "kafka:9092"
    assert both.internal_secret.get_secret_value()
    assert getattr(own, f"database_url_{process}").startswith(f"postgresql://{process}:")
    port = getattr(own, f"{process}_port")
    assert f"http://127.0.0.1:{port}/readyz" in one["healthcheck"]["test"][-1]
    for field in type(own).model_fields:
        if field.startswith("url_"):
            service = field.removeprefix("url_")
            assert (
                getattr(own, field)
                == f"http://{service}:{every[service]['environment'][f'ATAA_{service.upper()}_PORT']}"
            )


def test_payments_uses_the_sandbox_of_the_compose_file(monkeypatch: pytest.MonkeyPatch) -> None:
    every = services(new_env())
    _, payments = read("payments", settings(every["payments"]), monkeypatch)
    sandbox = every["sandbox"]
    assert payments.stripe_api_base == f"http://sandbox:{sandbox['environment']['ATAA_SANDBOX_PORT']}"
    assert payments.stripe_api_key.get_secret_value() == sandbox["environment"]["ATAA_STRIPE_API_KEY"]
    gateway = every["gateway"]["environment"]["ATAA_GATEWAY_PORT"]
    assert f"--webhook-url=http://gateway:{gateway}/webhooks/stripe" in sandbox["command"]


def test_ports_are_published_on_the_loopback_only() -> None:
    ports = [port for one in services(new_env()).values() for port in one.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_processes_have_no_capabilities_and_start_after_the_topics() -> None:
    every = services(new_env())
    for process in PROCESSES:
        one = every[process]
        assert (one["user"], one["read_only"], one["cap_drop"]) == ("10001:10001", True, ["ALL"])
        assert one["depends_on"]["topics"] == {"condition": "service_completed_successfully"}


def test_two_installations_share_no_secret() -> None:
    first, second = new_env(), new_env()
    same = {name for name in first if first[name] == second[name]}
    assert same == {"COMPOSE_PROFILES", "ATAA_STRIPE_API_BASE", "ATAA_PUBLIC_URL"}


def test_topics_match_the_list(tmp_path: Path) -> None:
    # Runs the script with a stub of kafka-topics.sh that prints its arguments.
    script = (FOLDER / "make-topics.sh").read_text().replace("/opt/kafka/bin/kafka-topics.sh", "echo")
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    made = {}
    for line in ran.stdout.splitlines():
        arguments = line.split()
        given = [arguments[place + 1] for place, one in enumerate(arguments) if one == "--config"]
        made[arguments[arguments.index("--topic") + 1]] = (
            arguments[arguments.index("--partitions") + 1],
            dict(entry.split("=", 1) for entry in given),
        )
    wanted = tomllib.loads((DEPLOY / "kafka" / "topics.toml").read_text())
    assert made == {
        name: (str(wanted["partitions"]), group["config"])
        for group in wanted.values()
        if isinstance(group, dict)
        for name in group["topics"]
    }


def test_prometheus_uses_the_same_labels_as_the_stack() -> None:
    def labels(file: Path) -> list[tuple[str, list[Any]]]:
        jobs = yaml.safe_load(file.read_text())["scrape_configs"]
        return [(job["job_name"], [one.get("labels") for one in job["static_configs"]]) for job in jobs]

    ours = FOLDER / "prometheus.yml"
    assert labels(ours) == labels(DEPLOY / "prometheus" / "prometheus.yml")
    targets = yaml.safe_load(ours.read_text())["scrape_configs"][0]["static_configs"]
    every = services(new_env())
    for target in targets:
        name, port = target["targets"][0].split(":")
        assert name == target["labels"]["service"]
        assert int(port) == every[name]["environment"]["ATAA_METRICS_PORT"]


def test_mounted_files_exist() -> None:
    for one in services(new_env()).values():
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).exists(), source


def test_scripts_are_executable() -> None:
    for name in ("new-env.sh", "make-topics.sh", "databases.sh"):
        assert os.access(FOLDER / name, os.X_OK)
        subprocess.run(["sh", "-n", FOLDER / name], check=True)
