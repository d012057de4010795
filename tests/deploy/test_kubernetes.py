"""The Kubernetes manifests: valid, consistent with the code, and restricted."""

from __future__ import annotations

import importlib.util
import inspect
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import yaml

from backbone.bus.protocol import PARTITIONS
from backbone.database.database import Database
from backbone.http.service_client import InProcessServiceClient
from backbone.process import StartupGate
from backbone.service import STOP_S, Service, metrics_app
from tests.deploy.manifests import (
    K8S,
    OVERLAYS,
    ROOT,
    SETTINGS,
    environment,
    images,
    of_kind,
    pods,
    read,
    rendered,
    secrets,
    tool,
)

PROCESSES = sorted(SETTINGS)


def test_every_overlay_renders_valid_resources() -> None:
    tool("kubectl"), tool("kubernetes-validate"), tool("hadolint")
    checked = subprocess.run([sys.executable, K8S / "check.py"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_check_reports_an_unknown_field(tmp_path: Any) -> None:
    tool("kubectl"), tool("kubernetes-validate"), tool("hadolint")
    wrong = {
        "service": {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}},
        "topic": {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": "b"},
            "spec": {"partitons": 12, "partitions": 12, "replicas": 1},
        },
        "unknown": {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "c"}},
    }
    for name, resource in wrong.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(resource))
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": [f"{name}.yaml" for name in wrong]})
    )
    checked = subprocess.run(
        [sys.executable, K8S / "check.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 1
    assert all(word in checked.stdout for word in ("prots", "partitons", "Thing"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_process_has_the_same_kinds_of_objects(overlay: str) -> None:
    resources = rendered(overlay)
    for kind in ("Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"):
        assert sorted(of_kind(resources, kind)) == PROCESSES
    assert sorted(of_kind(resources, "NetworkPolicy")) == sorted([*PROCESSES, "default-deny"])


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("process", PROCESSES)
def test_process_accepts_its_settings(process: str, overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = rendered(overlay)
    container = next(one for one in pods(resources)[process]["containers"] if one["name"] == "ataa")
    both, own = read(process, environment(container, resources), monkeypatch)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": getattr(own, f"{process}_port"), "metrics": both.metrics_port}
    assert both.service_host == "0.0.0.0"
    assert both.kafka_bootstrap
    assert both.internal_secret.get_secret_value()
    assert getattr(own, f"database_url_{process}").startswith(f"postgresql://{process}:")
    services = of_kind(resources, "Service")
    for field in own.__class__.model_fields:
        if field.startswith("url_"):
            service = field.removeprefix("url_")
            assert getattr(own, field) == f"http://{service}:{services[service]['spec']['ports'][0]['port']}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_network_policies_allow_every_internal_connection(overlay: str) -> None:
    policies = of_kind(rendered(overlay), "NetworkPolicy")
    for process, kind in SETTINGS.items():
        for service in (name.removeprefix("url_") for name in kind.model_fields if name.startswith("url_")):
            assert service in _named(policies[process]["spec"]["egress"], "to")
            assert process in _named(policies[service]["spec"]["ingress"], "from")


def _named(rules: list[dict[str, Any]], side: str) -> set[str]:
    selectors = [service.get("podSelector", {}) for rule in rules for service in rule.get(side, [])]
    return {one["matchLabels"]["app.kubernetes.io/name"] for one in selectors if one}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_runs_an_existing_module(overlay: str) -> None:
    for pod in pods(rendered(overlay)).values():
        for container in pod["containers"]:
            assert importlib.util.find_spec(f"{container['args'][0]}.__main__") is not None


@pytest.mark.parametrize("overlay", OVERLAYS)
async def test_probes_use_the_health_endpoints(overlay: str) -> None:
    opening = StartupGate(Service("pledges", metrics_app), "127.0.0.1:9", ready_with_bus=False)
    for pod in pods(rendered(overlay)).values():
        container = next(one for one in pod["containers"] if one["name"] == "ataa")
        asked = {
            probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")
        }
        assert {one["path"] for one in asked.values()} == {"/startupz", "/readyz", "/livez"}
        for one in asked.values():
            assert one["port"] == "http"
            reply = await InProcessServiceClient(opening).request("GET", one["path"], headers={})
            assert reply.headers["content-type"] == "text/plain"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_containers_have_no_privileges(overlay: str) -> None:
    for pod in pods(rendered(overlay)).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_termination_grace_period_covers_a_drain(overlay: str) -> None:
    for pod in pods(rendered(overlay)).values():
        container = next(one for one in pod["containers"] if one["name"] == "ataa")
        before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        # Time for open requests, then for the workers: see backbone.service.serve.
        assert pod["terminationGracePeriodSeconds"] > before + 2 * STOP_S


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_referenced_secret_and_account_is_created(overlay: str) -> None:
    resources = rendered(overlay)
    for pod in pods(resources).values():
        assert pod["serviceAccountName"] in of_kind(resources, "ServiceAccount")
        for container in pod["containers"]:
            for entry in container["env"]:
                ref = entry["valueFrom"]["secretKeyRef"]
                assert ref["key"] in secrets()[ref["name"]]
    for cluster in of_kind(resources, "Cluster").values():
        for role in cluster["spec"]["managed"]["roles"]:
            assert secrets()[role["passwordSecret"]["name"]]["username"] == role["name"]
    assert of_kind(resources, "Secret") == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_service_has_its_own_database(overlay: str) -> None:
    databases = of_kind(rendered(overlay), "Database")
    assert sorted(databases) == PROCESSES
    for name, database in databases.items():
        assert (database["spec"]["name"], database["spec"]["owner"]) == (name, name)
        assert f"/{name}" in secrets()[f"ataa-{name}-database"]["url"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_one_image_runs_all_processes_and_no_image_is_latest(overlay: str) -> None:
    text = yaml.safe_dump_all(rendered(overlay))
    ours = {image for image in images(text) if image.rpartition("/")[2].startswith("ataa:")}
    assert len(ours) == 1
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert ours.pop().endswith(f"ataa:{version}")
    for image in images(text) | images((ROOT / "deploy/compose/compose.yaml").read_text()):
        assert ":" in image
        assert not image.endswith(":latest")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_topics_match_the_list(overlay: str) -> None:
    wanted = tomllib.loads((ROOT / "deploy/kafka/topics.toml").read_text())
    made = of_kind(rendered(overlay), "KafkaTopic")
    for group in (group for group in wanted.values() if isinstance(group, dict)):
        for name in group["topics"]:
            spec = made.pop(name)["spec"]
            assert spec["partitions"] == wanted["partitions"] == PARTITIONS
            assert spec["config"].items() >= group["config"].items()
            assert int(spec["config"]["min.insync.replicas"]) == max(spec["replicas"] - 1, 1)
    assert made == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("process", PROCESSES)
def test_process_connects_to_an_existing_listener_as_an_existing_user(
    process: str, overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = rendered(overlay)
    listener = of_kind(resources, "Kafka")["ataa"]["spec"]["kafka"]["listeners"][0]
    user = of_kind(resources, "KafkaUser")["ataa"]
    pod = pods(resources)[process]
    container = next(one for one in pod["containers"] if one["name"] == "ataa")
    given = environment(container, resources)
    settings, _ = read(process, given, monkeypatch)
    assert settings.kafka_bootstrap == f"ataa-kafka-bootstrap:{listener['port']}"
    assert settings.kafka_security_protocol == ("SASL_SSL" if listener["tls"] else "SASL_PLAINTEXT")
    mechanism = settings.kafka_sasl_mechanism.lower()
    assert mechanism == listener["authentication"]["type"] == user["spec"]["authentication"]["type"]
    assert settings.kafka_sasl_user == user["metadata"]["name"]
    ref = user["spec"]["authentication"]["password"]["valueFrom"]["secretKeyRef"]
    assert settings.kafka_sasl_password.get_secret_value() == secrets()[ref["name"]][ref["key"]]
    folder, _, file = given["ATAA_KAFKA_CA_FILE"].rpartition("/")
    mount = next(one for one in container["volumeMounts"] if one["mountPath"] == folder)
    volume = next(one for one in pod["volumes"] if one["name"] == mount["name"])
    assert volume["secret"]["secretName"] == "ataa-cluster-ca-cert", "Strimzi's name for its authority"
    assert [one["path"] for one in volume["secret"]["items"]] == [file]
    let_out = of_kind(resources, "NetworkPolicy")[process]["spec"]["egress"]
    assert {"port": listener["port"]} in [port for rule in let_out for port in rule["ports"]]


def test_keda_connects_to_kafka_as_the_processes_do() -> None:
    resources = rendered("production")
    listener = of_kind(resources, "Kafka")["ataa"]["spec"]["kafka"]["listeners"][0]
    logins = of_kind(resources, "TriggerAuthentication")
    for one in of_kind(resources, "ScaledObject").values():
        for trigger in one["spec"]["triggers"]:
            metadata = trigger["metadata"]
            assert metadata["bootstrapServers"].endswith(f":{listener['port']}")
            assert (metadata["tls"], metadata["sasl"]) == ("enable", "scram_sha512")
            login = logins[trigger["authenticationRef"]["name"]]["spec"]["secretTargetRef"]
            assert {ref["parameter"] for ref in login} == {"username", "password", "ca"}
            for ref in login:
                assert ref["name"] == "ataa-cluster-ca-cert" or ref["key"] in secrets()[ref["name"]]


def test_scaling_is_bounded_by_partitions_and_uses_existing_topics() -> None:
    resources = rendered("production")
    topics = of_kind(resources, "KafkaTopic")
    scaled = of_kind(resources, "ScaledObject")
    assert sorted(scaled) == ["leaderboard", "notify", "payments"]
    for name, one in scaled.items():
        assert one["spec"]["scaleTargetRef"] == {"name": name}
        assert 2 <= one["spec"]["minReplicaCount"] <= one["spec"]["maxReplicaCount"] <= PARTITIONS
        for trigger in one["spec"]["triggers"]:
            assert trigger["metadata"]["topic"] in topics
            assert trigger["metadata"]["consumerGroup"] == name
            assert f"{trigger['metadata']['consumerGroup']}.dead-letter" in topics


def test_production_has_two_replicas_on_different_nodes() -> None:
    resources = rendered("production")
    least = {name: one["spec"]["minReplicaCount"] for name, one in of_kind(resources, "ScaledObject").items()}
    for name, one in of_kind(resources, "HorizontalPodAutoscaler").items():
        least[name] = one["spec"]["minReplicas"]
    assert sorted(least) == PROCESSES
    assert min(least.values()) >= 2
    for name, one in of_kind(resources, "Deployment").items():
        assert "replicas" not in one["spec"], "the autoscaler's number would be overwritten at each apply"
        host = pods(resources)[name]["topologySpreadConstraints"][0]
        assert (host["topologyKey"], host["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "DoNotSchedule")
    assert all(one["spec"]["tls"] for one in of_kind(resources, "Ingress").values())


def test_postgres_accepts_the_connections_of_all_replicas() -> None:
    resources = rendered("production")
    most = [one["spec"]["maxReplicaCount"] for one in of_kind(resources, "ScaledObject").values()]
    most += [one["spec"]["maxReplicas"] for one in of_kind(resources, "HorizontalPodAutoscaler").values()]
    pool = inspect.signature(Database.__init__).parameters["pool_size"].default
    # One extra pod each for a rolling update, one connection for the relay's lock, 20 for operators.
    needed = sum((replicas + 1) * (pool + 1) for replicas in most) + 20
    cluster = of_kind(resources, "Cluster")["ataa-postgres"]
    assert int(cluster["spec"]["postgresql"]["parameters"]["max_connections"]) >= needed


def test_dev_runs_one_replica_of_each_with_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    resources = rendered("dev")
    for one in of_kind(resources, "Deployment").values():
        assert one["spec"]["replicas"] == 1
    pod = {one["name"]: one for one in pods(resources)["payments"]["containers"]}
    _, payments = read("payments", environment(pod["ataa"], resources), monkeypatch)
    sandbox = environment(pod["sandbox"], resources)
    assert payments.stripe_api_base == f"http://127.0.0.1:{sandbox['ATAA_SANDBOX_PORT']}"
    assert payments.stripe_api_key.get_secret_value() == sandbox["ATAA_STRIPE_API_KEY"]
    assert not payments.livemode
    assert "gateway" in _named(of_kind(resources, "NetworkPolicy")["payments"]["spec"]["egress"], "to")
